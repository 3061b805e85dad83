//! The keys of a bundle's YAML files. Their JSON Schema is made from these types.

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::yaml::{At, Entries, Later, Many};
use crate::model::RuleScope;

/// Name and settings of the bundle: the content of `bundle.yaml`, or of the key `bundle` in another file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Name of the bundle, in every decision and record.
    pub(crate) name: At<String>,
    /// Version of the bundle, for people; default: the first 12 hex digits of its digest.
    pub(crate) revision: Option<At<String>>,
    /// Not in this version.
    pub(crate) sequence: Option<At<Later>>,
    /// Whether every operation needs a task; default `required`.
    pub(crate) tasks: Option<At<TasksWord>>,
    /// Operations that read, count nothing and are at most of this tier need no task; default: no operation.
    pub(crate) taskless_tier: Option<At<TierWord>>,
    /// Agents that work without tasks, with the bounds of their calls; default: no agent.
    pub(crate) implicit_tasks: Option<At<ImplicitEntry>>,
    /// Form of refusals at MCP endpoints.
    pub(crate) mcp: Option<McpEntry>,
    /// Most days that an exception may last from the time of loading, 1 to 365. Default: 365.
    pub(crate) max_exception_days: Option<At<u16>>,
    /// Systems whose denials may show a policy's `@reason` to the agent.
    #[serde(default)]
    pub(crate) show_reason: Many<At<String>>,
    /// Systems whose calls have their texts in clear in the audit, so that the calls can be replayed.
    #[serde(default)]
    pub(crate) record_texts: Many<At<String>>,
}

/// Form of refusals at MCP endpoints.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpEntry {
    /// Answer to a refused `tools/call`; default `tool_result`.
    pub(crate) deny_as: Option<DenyWord>,
}

/// Answer to a refused `tools/call`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DenyWord {
    /// HTTP 200 and a result with `isError`, which the model reads.
    ToolResult,
    /// HTTP 200 and a JSON-RPC error, which the client reads.
    JsonrpcError,
    /// The HTTP status of the reason; many clients then end their session.
    Http,
}

/// Whether every operation needs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TasksWord {
    /// Without a task, policy alone decides.
    Optional,
    /// Without a task, only operations within `taskless_tier` are permitted.
    Required,
}

/// Agents that work without tasks, with the bounds of their calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImplicitEntry {
    /// Roles whose agents work without tasks; such an agent can neither start nor be given one. Required.
    pub(crate) agents: Option<Many<At<String>>>,
    /// The template that bounds their calls; it has no parameters, and counts no uses.
    pub(crate) template: At<String>,
    /// No operation above this tier; default `low`.
    pub(crate) tier_cap: Option<At<TierWord>>,
}

/// Any other YAML file of a bundle: facts. A key may stand in several files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Facts")]
pub(crate) struct FactsFile {
    /// Which workloads hold a role.
    #[serde(default)]
    pub(crate) agents: Entries<AgentMembers>,
    /// Which subjects hold a role.
    #[serde(default)]
    pub(crate) subjects: Entries<Many<At<SubjectRule>>>,
    /// Systems and their operations.
    #[serde(default)]
    pub(crate) catalog: Entries<SystemEntry>,
    /// Meaning of operations: in each file the first rule that matches counts, an exact id before a glob.
    #[serde(default)]
    pub(crate) classify: Vec<At<ClassifyRule>>,
    /// Tools of MCP servers as they were reviewed: `sha256:…` by operation id. Written by `authz catalog accept`.
    #[serde(default)]
    pub(crate) accepted: Entries<At<String>>,
    /// Collections of resources, by name.
    #[serde(default)]
    pub(crate) resources: Entries<CollectionEntry>,
    /// Recipient lists, by name: sets of destinations that are kept outside the policies.
    #[serde(default)]
    pub(crate) recipient_lists: Entries<RecipientListEntry>,
    /// Classes of destinations, by name.
    #[serde(default)]
    pub(crate) destinations: Entries<DestinationEntry>,
    /// Labels, by name.
    #[serde(default)]
    pub(crate) labels: Entries<LabelEntry>,
    /// Templates of tasks, by name.
    #[serde(default)]
    pub(crate) templates: Entries<TemplateEntry>,
    /// Requirements of tiers beyond policy.
    #[serde(default)]
    pub(crate) tiers: Entries<TierEntry>,
    /// Rules over the order of events, by name: an event must, or must not, come before another.
    #[serde(default)]
    pub(crate) sequences: Entries<At<SequenceEntry>>,
    /// Counted limits, by name.
    #[serde(default)]
    pub(crate) budgets: Entries<At<BudgetEntry>>,
    /// Consequences for a task that is denied again and again. Default: none.
    pub(crate) denials: Option<At<DenialsEntry>>,
    /// Standing exceptions that policies may accept, by name.
    #[serde(default)]
    pub(crate) exceptions: Entries<At<ExceptionEntry>>,
    /// Queues of the people who approve calls, their bounds, and reasons of rejections. Default: as each key says.
    pub(crate) approvals: Option<At<ApprovalsEntry>>,
    /// Rules that map HTTP requests to operations.
    #[serde(default)]
    pub(crate) routes: Vec<At<RouteEntry>>,
    /// Whether denials are enforced; default: `enforce`.
    pub(crate) mode: Option<At<ModeEntry>>,
    /// Assertions about the bundle that `authz analyze` checks, and findings that are accepted for a time.
    pub(crate) analysis: Option<At<AnalysisEntry>>,
    /// Name and settings of the bundle, where it has no `bundle.yaml`.
    pub(crate) bundle: Option<At<Manifest>>,
}

/// The workloads of a role: a list of SPIFFE ids and patterns, or a mapping with `match`.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum AgentMembers {
    /// SPIFFE ids; `*` stands for one whole path segment.
    List(Vec<At<String>>),
    /// The same, with limits.
    Object(AgentObject),
}

/// The workloads of a role, with limits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentObject {
    /// SPIFFE ids; `*` stands for one whole path segment.
    pub(crate) r#match: Many<At<String>>,
    /// Not in this version.
    pub(crate) limits: Option<At<Later>>,
    /// Isolation of the runs of these agents. Default: `none`.
    pub(crate) isolated: Option<IsolatedWord>,
    /// How long a label counts after the last read that brought it, such as `24h`: 1m to 30d. Default: `24h`.
    pub(crate) memory: Option<At<String>>,
    /// These programs are agent and front end in one: prompts that they relay beside a subject's token count as the user's
    /// word up to tier standard. Default: false.
    pub(crate) harness: Option<bool>,
    /// Subjects of the agents' calls without a task; default: once an agent has acted for a subject, it must name one.
    pub(crate) subject: Option<OnBehalfWord>,
    /// Devices that these agents control, and with which they could press a button: approvals of their calls are answered
    /// with a passkey. Default: nothing.
    #[serde(default)]
    pub(crate) controls: Many<At<ControlsWord>>,
}

/// A device that agents control, and with which a person could answer an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ControlsWord {
    /// A web browser.
    Browser,
    /// A desktop with a keyboard and a pointer.
    Desktop,
    /// A shell that runs commands.
    Shell,
}

/// Subjects of an agent's calls without a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnBehalfWord {
    /// Each call shows the token of a subject.
    Required,
    /// A call may leave the subject out; every restriction of the agent for any subject then applies.
    Optional,
    /// The agents act for themselves, and show no subject.
    None,
}

/// Isolation of an agent's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IsolatedWord {
    /// The agent may use the data of one task in any later task.
    None,
    /// The agent never uses the data of one subject for another subject.
    PerSubject,
    /// Each task that another principal started runs by itself, and leaves no data that another task could find.
    PerTask,
}

/// A condition on a verified subject token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubjectRule {
    /// Alias of the issuer in the configuration.
    pub(crate) issuer: At<String>,
    /// A claim that the issuer's entry in the configuration keeps, or `sub`; without it every subject of the issuer.
    pub(crate) claim: Option<At<String>>,
    /// The claim is a list of texts, and this is one of them.
    pub(crate) contains: Option<At<String>>,
    /// The claim is this text.
    pub(crate) equals: Option<At<String>>,
}

/// A system and its operations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SystemEntry {
    /// The kind of its interface.
    pub(crate) kind: At<SystemWord>,
    /// `https://host[:port]`.
    pub(crate) origin: Option<At<String>>,
    /// Further headers that requests with a static secret may bring to the system.
    #[serde(default)]
    pub(crate) headers: Vec<At<String>>,
    /// Reporter of the results of its operations; default: `never`.
    pub(crate) reports: Option<At<ReportsWord>>,
    /// Its operations, by name: the id is `<system>.<name>`.
    #[serde(default)]
    pub(crate) operations: Entries<OperationEntry>,
}

/// Reporter of the results of a system's permitted operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReportsWord {
    /// No reporter: a permitted call counts as performed, with all labels that its results may carry.
    Never,
    /// The enforcer that asked, by `Report`.
    Sdk,
    /// The proxy that asked, by its access log.
    AccessLog,
}

/// The kind of a system's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SystemWord {
    /// A plain HTTP API, or an API about which only gRPC requests ask.
    Http,
    /// An MCP server, whose tools stand in `catalog/<system>.mcp.yaml`; an entry here may say its origin and headers.
    Mcp,
}

/// An operation: the schema of its arguments and, unless a rule of `classify` has it, its meaning.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationEntry {
    /// Description of the operation, for people.
    #[expect(dead_code, reason = "for people")]
    pub(crate) description: Option<String>,
    /// JSON Schema of its arguments, an object; default: no arguments.
    pub(crate) input: Option<At<serde_json::Value>>,
    /// Effects of the operation: at least one. Required with the other keys of its meaning, which follow.
    pub(crate) effects: Option<At<Vec<At<EffectWord>>>>,
    /// Possible damage of a call; default by its effects.
    pub(crate) tier: Option<At<TierWord>>,
    /// Labels of its results.
    pub(crate) yields: Option<Yields>,
    /// Resource that a call acts on.
    pub(crate) resource: Option<ResourceEntry>,
    /// Recipient of the data.
    pub(crate) destination: Option<At<DestinationFrom>>,
    /// Arguments with authority beside the destination: an object that is changed, deleted, bought, paid, granted or entered.
    pub(crate) objects: Option<Many<At<ObjectEntry>>>,
    /// Results that name an object which the call made.
    pub(crate) creates: Option<Many<At<CreatesEntry>>>,
    /// Results whose values count by their author.
    pub(crate) introduces: Option<Many<At<IntroducesEntry>>>,
    /// Results that pair an id with a name.
    pub(crate) pairs: Option<Many<At<PairsEntry>>>,
    /// Arguments that the server takes in a second form.
    pub(crate) coerces: Option<Many<At<CoercesEntry>>>,
    /// A failed call has no effect. Default: false.
    pub(crate) abortable: Option<bool>,
    /// One operation per value of an argument.
    pub(crate) split: Option<At<SplitEntry>>,
    /// Not in this version.
    pub(crate) provider: Option<At<Later>>,
}

impl OperationEntry {
    /// Moves the meaning out of the entry, as the rule that `classify` would have for the operation.
    ///
    /// Args: `id`: operation id, at the place of the operation's name.
    pub(crate) fn take_rule(&mut self, id: At<String>) -> Option<ClassifyRule> {
        let rule = ClassifyRule {
            r#match: id,
            effects: self.effects.take(),
            tier: self.tier.take(),
            yields: self.yields.take(),
            resource: self.resource.take(),
            destination: self.destination.take(),
            objects: self.objects.take(),
            creates: self.creates.take(),
            introduces: self.introduces.take(),
            pairs: self.pairs.take(),
            coerces: self.coerces.take(),
            input_responses: None,
            abortable: self.abortable.is_some_and(|abortable| abortable),
            proposed: false,
            split: self.split.take(),
            rows: None,
            provider: None,
        };
        let has_meaning = rule.effects.is_some()
            || rule.tier.is_some()
            || rule.yields.is_some()
            || rule.resource.is_some()
            || rule.destination.is_some()
            || rule.has_origins()
            || rule.split.is_some()
            || self.abortable.is_some();
        has_meaning.then_some(rule)
    }
}

/// Meaning of the operations of an id or a glob.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyRule {
    /// An operation id, or a glob: `*` stands for any characters.
    pub(crate) r#match: At<String>,
    /// Effects of the operation: at least one. Optional if each case of `split` has effects.
    pub(crate) effects: Option<At<Vec<At<EffectWord>>>>,
    /// Possible damage of a call; default by its effects.
    pub(crate) tier: Option<At<TierWord>>,
    /// Labels that its results carry.
    pub(crate) yields: Option<Yields>,
    /// Resource that a call acts on.
    pub(crate) resource: Option<ResourceEntry>,
    /// Destination of the data.
    pub(crate) destination: Option<At<DestinationFrom>>,
    /// Arguments with authority beside the destination: an object that is changed, deleted, bought, paid, granted or entered.
    pub(crate) objects: Option<Many<At<ObjectEntry>>>,
    /// Results that name an object which the call made.
    pub(crate) creates: Option<Many<At<CreatesEntry>>>,
    /// Results whose values count by their author.
    pub(crate) introduces: Option<Many<At<IntroducesEntry>>>,
    /// Results that pair an id with a name.
    pub(crate) pairs: Option<Many<At<PairsEntry>>>,
    /// Arguments that the server takes in a second form.
    pub(crate) coerces: Option<Many<At<CoercesEntry>>>,
    /// Answers of clients to requests of an MCP server during a call: a JSON Schema for each key of
    /// `inputResponses`. The answers and `requestState` are then arguments; without it, a call with them is refused.
    pub(crate) input_responses: Option<At<serde_json::Value>>,
    /// A failed call has no effect.
    #[serde(default)]
    pub(crate) abortable: bool,
    /// A proposal that nobody has reviewed: it decides about no operation.
    #[serde(default)]
    pub(crate) proposed: bool,
    /// One operation per value of an argument.
    pub(crate) split: Option<At<SplitEntry>>,
    /// Not in this version.
    pub(crate) rows: Option<At<Later>>,
    /// Not in this version.
    pub(crate) provider: Option<At<Later>>,
}

impl ClassifyRule {
    /// Whether it has a rule about the origins of values.
    pub(crate) const fn has_origins(&self) -> bool {
        self.objects.is_some()
            || self.creates.is_some()
            || self.introduces.is_some()
            || self.pairs.is_some()
            || self.coerces.is_some()
    }
}

/// One operation per value of an argument.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitEntry {
    /// JSON pointer to the argument, a text.
    pub(crate) on: At<String>,
    /// Meaning of each value; the id is `<operation>.<value>`. A call with another value is denied.
    pub(crate) cases: Entries<CaseEntry>,
    /// The value that an absent argument stands for; without it such a request is refused.
    pub(crate) when_absent: Option<At<String>>,
}

/// Meaning of one value of a split operation; default: the meaning of the rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseEntry {
    /// Effects of the operation.
    pub(crate) effects: Option<At<Vec<At<EffectWord>>>>,
    /// Possible damage of a call; default by its effects.
    pub(crate) tier: Option<At<TierWord>>,
    /// Labels that its results carry.
    pub(crate) yields: Option<Yields>,
    /// Resource that a call acts on.
    pub(crate) resource: Option<ResourceEntry>,
    /// Destination of the data.
    pub(crate) destination: Option<At<DestinationFrom>>,
    /// Arguments with authority beside the destination: an object that is changed, deleted, bought, paid, granted or entered.
    pub(crate) objects: Option<Many<At<ObjectEntry>>>,
    /// Results that name an object which the call made.
    pub(crate) creates: Option<Many<At<CreatesEntry>>>,
    /// Results whose values count by their author.
    pub(crate) introduces: Option<Many<At<IntroducesEntry>>>,
    /// Results that pair an id with a name.
    pub(crate) pairs: Option<Many<At<PairsEntry>>>,
    /// A failed call has no effect.
    pub(crate) abortable: Option<bool>,
}

/// Effect of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EffectWord {
    /// Returns data.
    Read,
    /// Changes data.
    Write,
    /// Removes data.
    Delete,
    /// Carries data out.
    Export,
    /// Runs code.
    Execute,
    /// Gives rights.
    Grant,
}

/// Possible damage of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TierWord {
    /// Public reads.
    Low,
    /// Everyday operations.
    Standard,
    /// Hard to undo.
    High,
    /// Changes permissions, or cannot be undone.
    Critical,
}

/// Labels that results carry: a list, or the least and the most.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Yields {
    /// Exactly these.
    Exact(Vec<At<String>>),
    /// At least and at most these.
    Range(YieldsRange),
}

/// The least and the most labels that results carry.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct YieldsRange {
    /// Always carried.
    #[serde(default)]
    pub(crate) minimum: Vec<At<String>>,
    /// Carried at most; holds the minimum.
    pub(crate) maximum: Vec<At<String>>,
}

/// Resource that an operation acts on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourceEntry {
    /// A collection of `resources`.
    pub(crate) collection: At<String>,
    /// JSON pointer to the argument that holds the id; without it the collection as a whole.
    pub(crate) id: Option<At<String>>,
}

/// Destination of an operation's data.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationFrom {
    /// JSON pointers to the arguments that name destinations; without it the enforcer names them.
    #[serde(default)]
    pub(crate) from: Many<At<String>>,
    /// Form of a destination.
    pub(crate) r#type: At<DestinationWord>,
    /// The authority that the destinations carry; default `recipient`.
    pub(crate) role: Option<At<RoleWord>>,
    /// The class where no argument names one; default: the least trusted class.
    pub(crate) when_absent: Option<At<String>>,
}

/// Form of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DestinationWord {
    /// An email address.
    Email,
    /// An http or https URL; its host counts.
    Url,
    /// An IBAN.
    Iban,
    /// The name of an account.
    Account,
    /// A path.
    Path,
}

/// Arguments that carry authority. The namespace of their values is a `collection` of the system, or a `type` of destinations;
/// without both, the values of this role in the system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectEntry {
    /// JSON pointers to the arguments: texts, numbers, booleans, or lists of them.
    pub(crate) from: Many<At<String>>,
    /// The authority that they carry.
    pub(crate) role: At<RoleWord>,
    /// A collection of `resources`, whose ids they are.
    pub(crate) collection: Option<At<String>>,
    /// Form of the values, if they are destinations.
    pub(crate) r#type: Option<At<DestinationWord>>,
    /// JSON pointer to the argument with the currency of an amount.
    pub(crate) currency: Option<At<String>>,
    /// Divisor of an amount: 100 where the argument is in hundredths; default 1.
    pub(crate) scale: Option<At<u32>>,
    /// The origin where no argument has a value; default `unknown`.
    pub(crate) when_absent: Option<OriginWord>,
}

/// The authority that an argument carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleWord {
    /// Receives the data.
    Recipient,
    /// Is changed, deleted, bought or entered.
    Target,
    /// Is paid or transferred.
    Amount,
    /// Is run.
    Command,
    /// Opens an account or system.
    Credential,
}

/// Origin of a value: the speaker who chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OriginWord {
    /// The user.
    Named,
    /// A trusted recipient list.
    Known,
    /// The session, which made the object.
    Made,
    /// A declared field of a result.
    Introduced,
    /// An agent, which relays it as the user's.
    Claimed,
    /// An unknown speaker.
    Unknown,
}

/// A result that names an object which the call made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatesEntry {
    /// Pointer into the result to the id; `*` stands for every element of an array.
    pub(crate) id: At<String>,
    /// A collection of `resources`.
    pub(crate) collection: At<String>,
}

/// A result whose values count by their author: ids of a `collection` of the system, or destinations of a `type`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IntroducesEntry {
    /// Pointer into the result to the values; `*` stands for every element of an array.
    pub(crate) from: At<String>,
    /// A collection of `resources`, whose ids they are.
    pub(crate) collection: Option<At<String>>,
    /// Form of the values, if they are destinations.
    pub(crate) r#type: Option<At<DestinationWord>>,
    /// Author of the field; default `anybody`, whose values are not trusted.
    pub(crate) by: Option<At<WriterWord>>,
    /// Pointer to the mailbox or account of the author, in the same item: a value counts if its author is named or known.
    pub(crate) author: Option<At<String>>,
}

/// Author of a field of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WriterWord {
    /// Only the owner of the data.
    Owner,
    /// Outsiders too.
    Anybody,
}

/// A result that pairs an id with a name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairsEntry {
    /// Pointer into the result to the id; `*` stands for every element of an array.
    pub(crate) id: At<String>,
    /// Pointer to the name, in the same item.
    pub(crate) name: At<String>,
    /// A collection of `resources`.
    pub(crate) collection: At<String>,
    /// Author of the name; default `anybody`, whose names are not trusted.
    pub(crate) by: Option<At<WriterWord>>,
}

/// An argument that the server takes in a second form; it is judged in the form of `to`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoercesEntry {
    /// JSON pointer to the argument.
    pub(crate) from: At<String>,
    /// The form in which the server takes it.
    pub(crate) to: At<CoercionWord>,
}

/// The form in which a server takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CoercionWord {
    /// The text `200` is 200.
    Integer,
    /// The text `2.5` is 2.5.
    Number,
    /// The texts `true` and `false` are booleans.
    Boolean,
    /// A host without a scheme is `https://host/`.
    Url,
    /// A folder, with or without a slash at its end.
    Folder,
}

/// A collection of resources.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionEntry {
    /// Labels of every resource in it.
    #[serde(default)]
    pub(crate) labels: Vec<At<String>>,
    /// More labels, by id.
    #[serde(default)]
    pub(crate) patterns: Vec<PatternEntry>,
    /// Lifetime of the labels on data that agents write into it: `12h`, `90d`; `none`: the data keeps no labels;
    /// default: `30d`.
    pub(crate) keeps_written: Option<At<String>>,
    /// Comparison of its ids: `exact`; `fold` if the system takes ids that differ in case for one id. Default:
    /// `exact`.
    #[serde(default)]
    pub(crate) spelling: SpellingWord,
}

/// Comparison of the ids of a collection.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpellingWord {
    /// Byte by byte.
    #[default]
    Exact,
    /// Without case.
    Fold,
}

/// Labels of the resources whose id matches.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatternEntry {
    /// A pattern over the id: `*` one whole segment, a last `**` any number of them.
    pub(crate) r#match: At<String>,
    /// Labels that it adds.
    pub(crate) labels: Vec<At<String>>,
}

/// A class of destinations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationEntry {
    /// Patterns over the canonical form; the most specific one wins.
    #[serde(default)]
    pub(crate) r#match: Many<At<String>>,
    /// Confidentiality labels for which the class is cleared.
    pub(crate) clearance: Vec<At<String>>,
    /// Least tier of a call that sends data there; default: the tier of the operation.
    pub(crate) tier: Option<TierWord>,
    /// Entries of these recipient lists have the class, too; an exact `match` of another class has priority.
    #[serde(default)]
    pub(crate) recipient_list: Many<At<String>>,
}

/// Consequences for a task that is denied again and again: denials of different calls since the last permit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenialsEntry {
    /// After so many denials, 1 to 64, every call has a tier higher by one, until a call is permitted; default: 5.
    pub(crate) raise_after: Option<At<u32>>,
    /// After so many denials, 1 to 64, the task and all tasks below it end as `REVOKED`; default: the task goes on.
    pub(crate) end_after: Option<At<u32>>,
}

/// A standing exception: a fact that policies may accept until it expires. It permits nothing by itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExceptionEntry {
    /// Caller that the exception is for: a role, or the SPIFFE id of an agent, where `*` stands for one whole path segment.
    pub(crate) who: At<String>,
    /// Operations that it covers: ids, or globs that begin with the name of a system, such as `erp.read_*`.
    pub(crate) operations: Many<At<String>>,
    /// Resources that it covers. Default: all resources of its operations.
    #[serde(default)]
    pub(crate) resources: SelectorSaid,
    /// Highest effective tier of a call that it covers. Default: `standard`.
    pub(crate) tier_cap: Option<TierWord>,
    /// Team or person who answers for the exception.
    pub(crate) owner: At<String>,
    /// Reason for which it exists, one line.
    pub(crate) reason: At<String>,
    /// Ticket in which it was granted.
    pub(crate) ticket: At<String>,
    /// Last day of the exception in UTC, or the time of its end: `2027-01-31` or `2027-01-31T18:00:00Z`. At most
    /// `max_exception_days` ahead.
    pub(crate) expires: At<String>,
    /// Obligations of a permit that depends on the exception, beside those of the policies. Default: none.
    #[serde(default)]
    pub(crate) obligations: Many<At<String>>,
}

/// Assertions about the bundle, and findings that are accepted for a time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnalysisEntry {
    /// Calls that must never be possible. At most 256.
    #[serde(default)]
    pub(crate) assertions: Vec<At<AssertionEntry>>,
    /// Findings that are accepted until a date. At most 1,000.
    #[serde(default)]
    pub(crate) suppressions: Vec<At<SuppressionEntry>>,
}

/// Calls that must never be possible.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssertionEntry {
    /// Name of the assertion; findings have the rule `assertion:<id>`.
    pub(crate) id: At<String>,
    /// The calls; all conditions must hold.
    pub(crate) never: At<NeverEntry>,
}

/// A pattern of calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NeverEntry {
    /// Role of the calling agent, or `any`. Default: any caller.
    pub(crate) agent: Option<At<String>>,
    /// Role of the subject for whom the agent calls. Default: any subject, or no subject.
    pub(crate) subject: Option<At<String>>,
    /// Operation: an id or a glob. Default: any.
    pub(crate) operation: Option<At<String>>,
    /// Effect of the operation. Default: any.
    pub(crate) effect: Option<EffectWord>,
    /// Least effective tier of the call. Default: any.
    pub(crate) tier: Option<TierWord>,
    /// Label of data that goes out. Needs `destination`.
    pub(crate) label: Option<At<String>>,
    /// Class of a destination of the call, or `any`. Default: with or without a destination.
    pub(crate) destination: Option<At<String>>,
    /// Label of data that was read before the call.
    pub(crate) after: Option<At<String>>,
    /// Step-up kinds with which the call is fine: `person`, `confirm`, `approve`, `two_person`, `approve:ROLE`. Default: none.
    #[serde(default)]
    pub(crate) without: Many<At<String>>,
}

/// Findings that are accepted until a date.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuppressionEntry {
    /// Id of one finding, 16 hexadecimal digits.
    pub(crate) finding: Option<At<String>>,
    /// Instead: rule of the findings, for example `unused-authority` or `assertion:<id>`.
    pub(crate) rule: Option<At<String>>,
    /// With `rule`: subject of the findings. Default: every subject.
    pub(crate) subject: Option<At<String>>,
    /// Team or person who answers for the suppression.
    pub(crate) owner: At<String>,
    /// Reason for which the finding is accepted, one line.
    pub(crate) reason: At<String>,
    /// Last day of the suppression in UTC, or the time of its end.
    pub(crate) until: At<String>,
}

/// Queues of the people who approve calls, their bounds, and reasons of rejections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalsEntry {
    /// Queue that answers `confirm` where no person is in the chain; default: `approve`.
    pub(crate) confirm_without_person: Option<At<String>>,
    /// Bounds of queues: `confirm`, `approve`, `two_person` and `approve:ROLE`.
    #[serde(default)]
    pub(crate) queues: Entries<At<ApprovalQueueEntry>>,
    /// Bounds of tasks and agents.
    pub(crate) limits: Option<ApprovalLimitsEntry>,
    /// Reasons with which a person rejects a call, by name: one line that the agent may see. Default: five reasons.
    #[serde(default)]
    pub(crate) reject_reasons: Entries<At<String>>,
}

/// Bounds of one queue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalQueueEntry {
    /// Most open approvals, 1 to 10,000; default: 200. Each person has a queue `confirm` of their own.
    pub(crate) max_open: Option<At<u32>>,
    /// Most new approvals in an hour, 1 to 10,000; default: 1,000.
    pub(crate) max_hourly: Option<At<u32>>,
    /// Of a queue `approve:ROLE`: time after which the deputies may answer, too.
    pub(crate) escalate_after: Option<At<String>>,
    /// Role of the deputies.
    pub(crate) deputies: Option<At<String>>,
}

/// Bounds of tasks and agents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalLimitsEntry {
    /// Most open approvals of one task, 1 to 10,000; default: 5.
    pub(crate) open_per_task: Option<At<u32>>,
    /// Most open approvals of one agent, 1 to 10,000; default: 50.
    pub(crate) open_per_agent: Option<At<u32>>,
}

/// A recipient list: a named set of destinations that is kept outside the policies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipientListEntry {
    /// A file of the bundle, under `data/`.
    pub(crate) file: Option<At<String>>,
    /// Instead: an https URL from which the list is fetched periodically.
    pub(crate) url: Option<At<String>>,
    /// The column of a CSV file that has a header; without it, each line is an entry.
    pub(crate) column: Option<At<String>>,
    /// The column of names by which users call the entries, so that "Ask Mark" names Mark's mailbox; needs `column`.
    pub(crate) alias: Option<At<String>>,
    /// How long ago its file may have been changed, or it may have been fetched: `24h`. Older, it trusts nothing. Default of a
    /// file: that makes no difference.
    pub(crate) max_age: Option<At<String>>,
    /// Whether its entries set `context.destination.trusted`; default: true.
    pub(crate) trusted: Option<bool>,
}

/// A label.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelEntry {
    /// Kind of the label.
    pub(crate) kind: LabelWord,
    /// Description of the label, for people.
    #[expect(dead_code, reason = "for people")]
    pub(crate) description: Option<String>,
    /// Least tier of every call while the task tree carries the label; default: the tier of the operation.
    pub(crate) tier: Option<TierWord>,
    /// Authz adds the label once another label was gathered from so many sources.
    pub(crate) derive: Option<At<DeriveEntry>>,
}

/// Rule that adds a label automatically: `sources` or `resources` is the number.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeriveEntry {
    /// The label that is gathered.
    pub(crate) from: At<String>,
    /// From so many collections and systems.
    pub(crate) sources: Option<At<u32>>,
    /// From so many resources.
    pub(crate) resources: Option<At<u32>>,
}

/// Kind of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LabelWord {
    /// Confidentiality: readers of the data.
    Confidentiality,
    /// Integrity: trust in the data.
    Trust,
}

/// Template of tasks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateEntry {
    /// Purpose of its tasks, in one line.
    pub(crate) purpose: At<String>,
    /// Parameters that a starter must give: name and type. `{name}` stands for the value in `ids`, `path_prefix`, `one_of` and
    /// `prefix`.
    #[serde(default)]
    pub(crate) params: Entries<ParamWord>,
    /// Longest lifetime of a task: `30m`, at most `24h`.
    pub(crate) deadline: At<String>,
    /// How long a task may lie idle: `10m`; default: as long as it lives.
    pub(crate) idle_timeout: Option<At<String>>,
    /// Greatest depth of tasks below a root, at most 6; default 0: a task may not be delegated.
    pub(crate) max_depth: Option<At<u32>>,
    /// Highest tier of the operations; default `standard`.
    pub(crate) tier_cap: Option<At<TierWord>>,
    /// Roles of agents that may start a root task of the template; a subject needs no role.
    #[serde(default)]
    pub(crate) starters: Many<At<String>>,
    /// Scope of the tasks.
    pub(crate) scope: Vec<At<ScopeSaid>>,
    /// Outcome of a call that `scope` does not allow because of its operation, ids, collection or arguments: `step_up`
    /// holds it until the user confirms it, `{step_up: KIND}` until a step-up of that kind is met. Default: it is denied.
    pub(crate) beyond: Option<At<BeyondSaid>>,
    /// Destinations that count as named in each of its tasks, for work that no user writes a prompt for: mailboxes, URLs
    /// (with all below their path), IBANs, paths, accounts.
    #[serde(default)]
    pub(crate) names: Many<At<String>>,
}

/// Outcome of a call beyond the scope: a word, or a mapping.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum BeyondSaid {
    /// The call is held until the user confirms it.
    Word(BeyondWord),
    /// The call is held until a step-up of a kind is met.
    Object(BeyondObject),
}

/// Outcome of a call beyond the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BeyondWord {
    /// The call is held until the user confirms it.
    StepUp,
}

/// Outcome of a call beyond the scope, with the kind of the step-up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeyondObject {
    /// Step-up kind, as in `@stepup`: `confirm`, `approve`, `two_person`, `approve:ROLE`, `bound_token`, …
    pub(crate) step_up: At<String>,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum ParamWord {
    /// A text.
    String,
    /// A whole number.
    Long,
    /// True or false.
    Bool,
}

/// An entry of a scope: `operation`, `operations` or `system` names the operations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeSaid {
    /// An operation.
    pub(crate) operation: Option<At<String>>,
    /// Operations.
    pub(crate) operations: Option<At<Vec<At<String>>>>,
    /// All reviewed operations of a system.
    pub(crate) system: Option<At<String>>,
    /// With `system`: only operations without other effects.
    pub(crate) effects: Option<At<Vec<At<EffectWord>>>>,
    /// Resources; default: all.
    pub(crate) resources: Option<At<SelectorSaid>>,
    /// Limits on arguments, by JSON pointer.
    #[serde(default)]
    pub(crate) arguments: Entries<At<LimitSaid>>,
    /// Number of uses; default: no limit.
    pub(crate) uses: Option<At<u32>>,
}

/// Resources that meet all of these conditions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SelectorSaid {
    /// Any of these collections.
    pub(crate) collections: Option<Many<At<String>>>,
    /// Any of these ids; `{name}` stands for a parameter.
    pub(crate) ids: Option<Many<At<String>>>,
    /// Ids that begin with these whole segments; `{name}` stands for a parameter.
    pub(crate) path_prefix: Option<At<String>>,
    /// No other labels than these.
    pub(crate) label_ceiling: Option<Many<At<String>>>,
}

/// A limit on one argument; a missing argument is beyond the limit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LimitSaid {
    /// One of these; `{name}` stands for a parameter. Numbers and booleans are written as texts.
    OneOf(Many<At<String>>),
    /// A whole number from the first to the second.
    Range(Vec<i64>),
    /// A text with this beginning; `{name}` stands for a parameter.
    Prefix(At<String>),
}

/// A rule over the order of events: `require` and `before`, `never` and `after`, `order` and `forbid`, or `switch`.
///
/// An event is an operation (its id, or a glob over ids), `effect:<effect>` or `system:<system>`, when it is let through; in
/// `after` and `order` also `denied(…)` of those.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SequenceEntry {
    /// Events that must have come before the events of `before`.
    pub(crate) require: Option<Many<At<String>>>,
    /// Events that need `require`.
    pub(crate) before: Option<Many<At<String>>>,
    /// Events that must not come after the events of `after`.
    pub(crate) never: Option<Many<At<String>>>,
    /// Events that `never` must not follow.
    pub(crate) after: Option<Many<At<String>>>,
    /// Steps, one after the other with anything between, that `forbid` must not follow.
    pub(crate) order: Option<At<Vec<Many<At<String>>>>>,
    /// Events that must not follow `order`.
    pub(crate) forbid: Option<Many<At<String>>>,
    /// Effects of which the second must not follow the first.
    pub(crate) switch: Option<SwitchEntry>,
    /// Time for which an earlier event counts: `10m`, at most `24h`; default: as long as the session.
    pub(crate) within: Option<At<String>>,
    /// Common value of the events: the JSON pointer of an argument, or `resource`; default: no common value.
    pub(crate) key: Option<At<String>>,
    /// Scope of the events that count; default `session`.
    pub(crate) scope: Option<ScopeWord>,
    /// Time from which an event of `require` counts; default: its report as done.
    pub(crate) counts: Option<At<CountsWord>>,
}

/// Effects of which the second must not follow the first.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchEntry {
    /// Two effects.
    pub(crate) effect: At<Vec<At<EffectWord>>>,
}

/// Scope of the events that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScopeWord {
    /// Those of one task.
    Task,
    /// Those of a task tree.
    Session,
    /// Those of an agent, in all of its tasks.
    Agent,
    /// Those for a subject, in all tasks and of all agents.
    Subject,
}

impl ScopeWord {
    pub(crate) const fn scope(self) -> RuleScope {
        match self {
            Self::Task => RuleScope::Task,
            Self::Session => RuleScope::Session,
            Self::Agent => RuleScope::Agent,
            Self::Subject => RuleScope::Subject,
        }
    }
}

/// A counted limit: `count`, `sum` and `of`, or `distinct` and `of`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetEntry {
    /// How many of these are let through: operation ids, globs, `effect:…`, `system:…`.
    pub(crate) count: Option<Many<At<String>>>,
    /// The sum of an argument, by JSON pointer: a whole number that is required.
    pub(crate) sum: Option<At<String>>,
    /// How many different values of an argument, by JSON pointer; of a list each of its members.
    pub(crate) distinct: Option<At<String>>,
    /// Operations of `sum` and `distinct`: ids, globs, `effect:…`, `system:…`.
    pub(crate) of: Option<Many<At<String>>>,
    /// Limit of the count, the sum or the number of values.
    pub(crate) most: At<i64>,
    /// Window: `10m`, at most `24h`; default: as long as the session.
    pub(crate) within: Option<At<String>>,
    /// Scope of the calls that count; default `session`.
    pub(crate) scope: Option<ScopeWord>,
    /// Outcome of a call that would exceed the budget; default `deny`.
    pub(crate) then: Option<ThenWord>,
}

/// Outcome of a call that would exceed a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThenWord {
    /// The call is denied.
    Deny,
    /// Policies that read `context.budgets` decide.
    Policy,
}

/// Time from which a required event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CountsWord {
    /// The event counts once it is permitted.
    Permitted,
}

/// Requirements of tiers beyond policy.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierEntry {
    /// The caller's credential is bound to a key that the caller proved.
    pub(crate) bound: Option<bool>,
    /// The caller's credential is at most this old: `30s`, `15m`, `24h`, `7d`.
    pub(crate) max_age: Option<At<String>>,
    /// Least confidence, 0 to 100.
    pub(crate) confidence: Option<At<u8>>,
    /// People who must agree.
    pub(crate) approval: Option<ApprovalWord>,
    /// The chain has a verified subject.
    pub(crate) subject: Option<bool>,
    /// The audit record is on disk before the answer leaves. Default: false for `low` and `standard`; always true for `high` and
    /// `critical`.
    pub(crate) durable_audit: Option<At<bool>>,
}

/// People who must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ApprovalWord {
    /// Nobody.
    None,
    /// The subject.
    Confirm,
    /// Another person.
    Approve,
    /// Two other persons.
    TwoPerson,
}

/// Whether denials are enforced: a word, or a mapping.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum ModeEntry {
    /// For everything.
    Word(ModeWord),
    /// By system, agent or tier.
    Object(ModeObject),
}

/// Whether denials are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeWord {
    /// A denial denies.
    Enforce,
    /// The denial is recorded, and the call is let through.
    Observe,
}

/// Whether denials are enforced, by call: the most specific entry counts; of several such entries, the strictest.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModeObject {
    /// For calls without another entry; default: `enforce`.
    pub(crate) default: Option<At<ModeWord>>,
    /// Owner of entries without an owner of their own.
    pub(crate) owner: Option<At<String>>,
    /// End of entries without an end of their own, after which they are `enforce`: a date, or a timestamp (RFC 3339).
    pub(crate) until: Option<At<String>>,
    /// By system.
    #[serde(default)]
    pub(crate) systems: Entries<ModeSaid>,
    /// By SPIFFE id; `*` stands for one whole path segment.
    #[serde(default)]
    pub(crate) agents: Entries<ModeSaid>,
    /// By tier.
    #[serde(default)]
    pub(crate) tiers: Entries<ModeSaid>,
}

/// Whether denials are enforced: a word, or a mapping with `mode`.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum ModeSaid {
    /// With the owner and the end of the section.
    Word(ModeWord),
    /// With its own owner and end.
    Object(ModeOwned),
}

/// Whether denials are enforced, with owner and end.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModeOwned {
    /// Whether denials are enforced.
    pub(crate) mode: ModeWord,
    /// Owner of the entry.
    pub(crate) owner: Option<At<String>>,
    /// End of the entry, after which it is `enforce`: a date, or a timestamp (RFC 3339).
    pub(crate) until: Option<At<String>>,
}

/// Rules that map HTTP requests to operations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteEntry {
    /// `host` or `host:port`; without a port any port, without it any host.
    pub(crate) host: Option<At<String>>,
    /// The method, upper case.
    pub(crate) method: Option<At<String>>,
    /// The path: literal segments and `{name}` segments.
    pub(crate) path: At<String>,
    /// Headers that must be there once, with exactly this value.
    #[serde(default)]
    pub(crate) headers: Entries<At<String>>,
    /// The operation.
    pub(crate) operation: Option<At<String>>,
    /// Instead of method, operation and arguments: the system whose MCP endpoint (streamable HTTP) this is.
    pub(crate) mcp: Option<At<String>>,
    /// Source of each argument.
    #[serde(default)]
    pub(crate) arguments: Entries<At<SourceEntry>>,
    /// Parts of the request that are not arguments.
    #[serde(default)]
    pub(crate) ignore: Vec<At<IgnoreEntry>>,
    /// Types of the JSON body that it reads: `application/json` or `application/…+json`. Default: `application/json`.
    #[serde(default)]
    pub(crate) content_types: Vec<At<String>>,
    /// The upstream gets the token in `authorization` that proved the agent or the subject, with its DPoP proof.
    #[serde(default)]
    pub(crate) forward_authorization: bool,
    /// Not in this version.
    pub(crate) forward: Option<At<Later>>,
}

/// Source of an argument.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SourceEntry {
    /// A `{name}` segment of the path.
    Path(String),
    /// A member of the query.
    Query(String),
    /// A header.
    Header(String),
    /// A JSON pointer into the body; `""` is the whole body.
    Json(String),
}

/// A part of a request that is not an argument.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IgnoreEntry {
    /// A `{name}` segment of the path.
    Path(String),
    /// A member of the query.
    Query(String),
    /// A JSON pointer into the body, with all below it.
    Json(String),
    /// The whole body, of any type.
    Body,
}

/// A value that is a list of `$list` or a mapping that is `$object`; places survive, which serde's own untagged enums
/// would lose.
macro_rules! list_or_object {
    ($type:ident, $list:ident, $object:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;
                impl<'de> Visitor<'de> for Either {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<$type, A::Error> {
                        Deserialize::deserialize(SeqAccessDeserializer::new(seq)).map($type::$list)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
                        Deserialize::deserialize(MapAccessDeserializer::new(map))
                            .map($type::$object)
                    }
                }
                deserializer.deserialize_any(Either)
            }
        }
    };
}

list_or_object!(AgentMembers, List, Object, "a list of SPIFFE ids, or a mapping with `match`");
list_or_object!(
    Yields,
    Exact,
    Range,
    "a list of labels, or a mapping with `minimum` and `maximum`"
);

/// A value that is a word or a mapping that is `$object`.
macro_rules! word_or_object {
    ($type:ident, $word:ident, $object:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;
                impl<'de> Visitor<'de> for Either {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<$type, E> {
                        $word::deserialize(word.into_deserializer()).map($type::Word)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
                        Deserialize::deserialize(MapAccessDeserializer::new(map)).map($type::Object)
                    }
                }
                deserializer.deserialize_any(Either)
            }
        }
    };
}

word_or_object!(
    BeyondSaid,
    BeyondWord,
    BeyondObject,
    "`step_up`, or a mapping with `step_up: KIND`"
);
word_or_object!(ModeEntry, ModeWord, ModeObject, "`enforce`, `observe`, or a mapping");
word_or_object!(ModeSaid, ModeWord, ModeOwned, "`enforce`, `observe`, or a mapping with `mode`");

/// What one file of a bundle may be: for the published schema only.
#[derive(JsonSchema)]
#[schemars(untagged, title = "Authz bundle file")]
#[expect(dead_code, clippy::large_enum_variant, reason = "only its schema is used")]
pub(crate) enum AnyFile {
    /// `bundle.yaml`.
    Manifest(Manifest),
    /// `catalog/<system>.mcp.yaml`.
    Catalog(super::mcp::McpFile),
    /// Any other file.
    Facts(FactsFile),
}
