//! What tasks are made from: one entry for each operation, so that a decision only looks one up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use authz_base::record::task::{MAX_DEPTH, MAX_LITERALS, MAX_SCOPE, MAX_TEXTS, check_text};
use authz_base::spelling::{Misspelling, check_id, check_prefix};

use super::build::{ModelBuilder, duration};
use super::classify::{effect, tier};
use super::types::{
    BeyondSaid, BeyondWord, ImplicitEntry, LimitSaid, ParamWord, ScopeSaid, SelectorSaid,
    TemplateEntry, TierWord,
};
use super::yaml::{At, Entries, Many};
use crate::diagnostic::{Advice, clip, unknown};
use crate::ids;
use crate::model::{
    BUILT_IN_KINDS, Declared, Effect, ImplicitRule, LimitRule, Location, Operation, ParamType,
    ScopePlace, ScopeRule, SelectorRule, Slot, Template, Tier, is_step_up_kind,
};
use crate::prompt;
use authz_base::spiffe::overlap;

/// Templates of a bundle.
const MOST_TEMPLATES: usize = 1_000;
/// Entries of all their scopes.
const MOST_RULES: usize = 200_000;
/// Parameters of one template.
const MOST_PARAMS: usize = 32;
/// How long a task may live.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Step-up kind of `beyond: step_up`.
const CONFIRM: &str = "confirm";
/// Bytes of a purpose.
const LONGEST_PURPOSE: usize = 256;

/// What `bundle.yaml` says of tasks, and the rest of the bundle must bear out.
#[derive(Debug, Default)]
pub(super) struct TaskKeys {
    pub(super) taskless_tier: Option<At<TierWord>>,
    pub(super) implicit: Option<At<ImplicitEntry>>,
}

/// Takes over what `bundle.yaml` says, once the templates are known.
pub(super) fn tasks(build: &mut ModelBuilder<'_>, file: &str, said: &TaskKeys) {
    let model = &build.model;
    let nothing =
        !model.tasks.optional && said.taskless_tier.is_none() && model.templates.is_empty();
    if nothing && !build.found.has_errors() {
        let what = "every operation needs a task, and there is no template to start one from";
        let fix = "Add `templates`, or say `tasks: optional`.";
        build.found.warning(&super::whole(file), what, fix);
    }
    if let Some(said) = &said.taskless_tier {
        if build.model.tasks.optional {
            let what = "`taskless_tier` says nothing beside `tasks: optional`";
            build.found.error(&said.at.within(file), what, "Remove one of the two.");
        }
        build.model.tasks.taskless_tier = Some(tier(said.value));
    }
    if let Some(said) = &said.implicit {
        implicit(build, file, said);
    }
}

/// Takes over the agents that work without tasks, and the bounds of their calls.
fn implicit(build: &mut ModelBuilder<'_>, file: &str, said: &At<ImplicitEntry>) {
    let At { at, value: said } = said;
    let name = &said.template;
    let place = name.at.within(file);
    let tier_cap = said.tier_cap.as_ref().map_or(Tier::Low, |said| tier(said.value));
    let mut rule =
        ImplicitRule { template: name.value.clone(), template_digest: String::new(), tier_cap };
    match build.model.templates.get(&name.value) {
        None => {
            let declared = build.model.templates.iter().map(|(n, t)| (n.as_str(), Some(&t.at)));
            let (what, fix) = unknown("template", &name.value, declared);
            build.found.error(&place, what, fix);
        }
        Some(template) => {
            rule.template_digest = template.digest();
            rule.tier_cap = tier_cap.min(template.tier_cap);
            let counted = template.scope.iter().find(|rule| rule.uses.is_some());
            if !template.params.is_empty() {
                let what = format!(
                    "the template `{}` has parameters, and nobody says them for an agent that works without tasks",
                    clip(&name.value)
                );
                build.found.error(&place, what, "Name a template without `params`.");
            } else if let Some(counted) = counted {
                let what = format!(
                    "the template `{}` counts the uses of `{}` in a task, and these agents have none",
                    clip(&name.value),
                    counted.operation
                );
                let fix = format!(
                    "Remove `uses` there, and write a budget: `budgets: {{NAME: {{count: {}, most: N, within: 24h}}}}`.",
                    counted.operation
                );
                build.found.error(&place, what, fix);
            }
        }
    }
    let Some(agents) = said.agents.as_ref().filter(|agents| !agents.0.is_empty()) else {
        let what = "`implicit_tasks` does not say which agents work without tasks";
        let fix = "Add `agents: [ROLE]`. An agent of such a role is given no task; any other agent needs one.";
        return build.found.error(&at.within(file), what, fix);
    };
    for role in &agents.0 {
        if let Some(members) = build.model.roles.get_mut(&role.value)
            && !members.agents.is_empty()
        {
            members.is_implicit = true;
            continue;
        }
        let of_agents = build.model.roles.iter().filter(|(_, known)| !known.agents.is_empty());
        let declared = of_agents.map(|(name, known)| (name.as_str(), Some(&known.at)));
        let (what, fix) = unknown("role of agents", &role.value, declared);
        build.found.error(&role.at.within(file), what, fix);
    }
    build.model.tasks.implicit = Some(rule);
    either(build);
}

/// Refuses a template that an agent may start which works without tasks: such an agent would choose which of the two counts.
fn either(build: &mut ModelBuilder<'_>) {
    let ModelBuilder { model, found, .. } = build;
    let implicit: Vec<(&String, &Declared<String>)> = model
        .roles
        .iter()
        .filter(|(_, members)| members.is_implicit)
        .flat_map(|(role, members)| members.agents.iter().map(move |agent| (role, agent)))
        .collect();
    for (name, template) in &model.templates {
        for starter in &template.starters {
            let agents = model.roles.get(starter).into_iter().flat_map(|members| &members.agents);
            let both = agents
                .filter_map(|agent| {
                    let is_same = |(_, other): &&(&String, &Declared<String>)| {
                        overlap(&agent.value, &other.value)
                    };
                    implicit.iter().find(is_same)
                })
                .next();
            let Some((role, agent)) = both else { continue };
            let what = format!(
                "agents of role `{starter}` start tasks of `{name}`, and such an agent works without tasks: `{}` \
                 ({}:{}) of role `{role}`, which `implicit_tasks.agents` of bundle.yaml names",
                agent.value, agent.at.file, agent.at.line
            );
            let fix = format!(
                "Remove `{starter}` from `starters`, or `{role}` from `implicit_tasks.agents`, or let their patterns \
                 name different agents."
            );
            found.error(&template.at, what, fix);
        }
    }
}

/// Takes over the templates of one file. Operations must be sorted, and have their meaning.
pub(super) fn apply(build: &mut ModelBuilder<'_>, file: &str, said: &Entries<TemplateEntry>) {
    let operations = std::mem::take(&mut build.model.operations);
    read(build, file, said, &operations);
    build.model.operations = operations;
}

fn read(
    build: &mut ModelBuilder<'_>,
    file: &str,
    said: &Entries<TemplateEntry>,
    operations: &[Operation],
) {
    for (id, entry) in &said.0 {
        let Some(at) = build.declare(file, "template", id, refuse_name) else { continue };
        if build.model.templates.len() >= MOST_TEMPLATES {
            let what = format!("more than {MOST_TEMPLATES} templates");
            return build.found.error(&at, what, "Join some of them: parameters tell them apart.");
        }
        let mut reading = TemplateReading {
            file,
            build: &mut *build,
            operations,
            params: BTreeMap::new(),
            entries: Vec::new(),
        };
        let template = reading.template(entry, at);
        let entries = std::mem::take(&mut reading.entries);
        if let Some(cap) = &entry.tier_cap {
            build.model.places.tier_caps.insert(id.value.clone(), cap.at.within(file));
        }
        if let Some(beyond) = &entry.beyond {
            build.model.places.beyonds.insert(id.value.clone(), beyond.at.within(file));
        }
        build.model.places.scopes.insert(id.value.clone(), entries);
        let rules: usize = build.model.templates.values().map(|t| t.scope.len()).sum();
        if rules + template.scope.len() > MOST_RULES {
            let what = format!("the scopes of all templates have more than {MOST_RULES} entries");
            return build.found.error(&template.at, what, "Name fewer operations.");
        }
        build.model.templates.insert(id.value.clone(), template);
    }
}

/// Problem of a template's name.
fn refuse_name(name: &str) -> Option<&'static str> {
    if name == authz_base::record::task::NO_TEMPLATE {
        return Some("`none` stands for a request without a task");
    }
    ids::refuse(name)
}

/// A template while it is read.
struct TemplateReading<'a, 'b> {
    file: &'a str,
    build: &'a mut ModelBuilder<'b>,
    /// Sorted by id.
    operations: &'a [Operation],
    params: BTreeMap<String, ParamType>,
    /// Entries of the scope that were read so far.
    entries: Vec<ScopePlace>,
}

impl<'a> TemplateReading<'a, '_> {
    fn error(&mut self, at: super::Mark, what: impl Into<String>, fix: impl Into<Advice>) {
        self.build.found.error(&at.within(self.file), what, fix);
    }

    fn template(&mut self, said: &TemplateEntry, at: Location) -> Template {
        self.params(&said.params);
        let purpose = &said.purpose;
        let text = purpose.value.as_str();
        if text.trim().is_empty() || text.len() > LONGEST_PURPOSE || text.contains(char::is_control)
        {
            let what = format!("a purpose is one line of at most {LONGEST_PURPOSE} bytes");
            self.error(purpose.at, what, "Say what the task is for.");
        }
        let deadline = self.span("deadline", &said.deadline, LONGEST);
        let idle_timeout = match &said.idle_timeout {
            None => None,
            Some(said) => {
                let span = self.span("idle_timeout", said, LONGEST);
                if span > deadline {
                    let fix = "Make it shorter, or remove it.";
                    self.error(said.at, "`idle_timeout` is longer than `deadline`", fix);
                }
                Some(span)
            }
        };
        let max_depth = said.max_depth.as_ref().map_or(0, |depth| depth.value);
        if let Some(depth) = said.max_depth.as_ref().filter(|depth| depth.value > MAX_DEPTH) {
            let what = format!("`max_depth` {} is above {MAX_DEPTH}", depth.value);
            self.error(depth.at, what, format!("Write 0 to {MAX_DEPTH}."));
        }
        let mut starters = BTreeSet::new();
        for role in &said.starters.0 {
            let roles = &self.build.model.roles;
            if roles.get(&role.value).is_none_or(|members| members.agents.is_empty()) {
                let agents = roles.iter().filter(|(_, members)| !members.agents.is_empty());
                let declared = agents.map(|(name, members)| (name.as_str(), Some(&members.at)));
                let (what, fix) = unknown("role of agents", &role.value, declared);
                self.error(role.at, what, fix);
            }
            starters.insert(role.value.clone());
        }
        let mut scope: Vec<ScopeRule> = Vec::new();
        for said in &said.scope {
            self.entry(said, &mut scope);
            if scope.len() > MAX_SCOPE {
                let what = format!("the scope has more than {MAX_SCOPE} entries");
                self.error(said.at, what, "An entry of a system is one for each operation.");
                break;
            }
        }
        if said.scope.is_empty() {
            let fix = "Add `{operation: …}` to `scope`.";
            self.build.found.error(&at, "the tasks of this template may do nothing", fix);
        }
        let names = self.names(&said.names.0);
        let beyond = said.beyond.as_ref().and_then(|said| self.beyond(&said.value));
        // Stable: entries of one operation keep their order.
        scope.sort_by(|a, b| a.operation.cmp(&b.operation));
        Template {
            purpose: purpose.value.clone(),
            params: std::mem::take(&mut self.params),
            deadline,
            idle_timeout,
            max_depth,
            tier_cap: said.tier_cap.as_ref().map_or(Tier::Standard, |said| tier(said.value)),
            starters,
            scope,
            beyond,
            names,
            at,
        }
    }

    /// Step-up kind by which calls beyond the scope are held. `None`: the kind is not valid, which is reported.
    fn beyond(&mut self, said: &BeyondSaid) -> Option<String> {
        let kind = match said {
            BeyondSaid::Word(BeyondWord::StepUp) => return Some(CONFIRM.to_owned()),
            BeyondSaid::Object(object) => &object.step_up,
        };
        let roles = &self.build.model.roles;
        if is_step_up_kind(&kind.value, roles) {
            return Some(kind.value.clone());
        }
        let approvers = roles.keys().map(|role| format!("approve:{role}"));
        let known: Vec<String> =
            BUILT_IN_KINDS.iter().map(|kind| (*kind).to_owned()).chain(approvers).collect();
        let declared = known.iter().map(|kind| (kind.as_str(), None));
        let (what, mut fix) = unknown("step-up kind", &kind.value, declared);
        if !fix.is_guess() {
            fix = format!("Known are {}, approve:ROLE and reauth:ACR.", BUILT_IN_KINDS.join(", "))
                .into();
        }
        self.error(kind.at, what, fix);
        None
    }

    fn names(&mut self, said: &[At<String>]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for name in said {
            if names.len() >= MAX_LITERALS {
                let what = format!("more than {MAX_LITERALS} `names`");
                self.error(name.at, what, "Use a recipient list with `trusted: true`.");
                break;
            }
            match prompt::read_name(&name.value) {
                Ok(read) => {
                    names.insert(read);
                }
                Err(why) => {
                    let what = format!("`{}` names no destination: {why}", clip(&name.value));
                    let fix = "Write `a@x.example`, `https://x.example/folder`, an IBAN, `/folder/file` or `#account`.";
                    self.error(name.at, what, fix);
                }
            }
        }
        names
    }

    fn params(&mut self, said: &Entries<ParamWord>) {
        for (name, word) in &said.0 {
            let text = name.value.as_str();
            let fine = text.len() <= 64
                && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !fine {
                let what = format!("bad parameter `{}`", clip(text));
                let fix = "Use letters, digits and `_`, a letter first, at most 64.";
                self.error(name.at, what, fix);
            }
            let kind = match word {
                ParamWord::String => ParamType::String,
                ParamWord::Long => ParamType::Long,
                ParamWord::Bool => ParamType::Bool,
            };
            self.params.insert(text.to_owned(), kind);
        }
        if let Some((name, _)) = said.0.get(MOST_PARAMS) {
            let what = format!("more than {MOST_PARAMS} parameters");
            self.error(name.at, what, "Remove some.");
        }
    }

    fn span(&mut self, key: &str, said: &At<String>, longest: Duration) -> Duration {
        match duration(&said.value) {
            Some(span) if span <= longest => span,
            Some(_) => {
                self.error(said.at, format!("`{key}` is longer than 24h"), "Write at most 24h.");
                longest
            }
            None => {
                let what = format!("`{}` is no duration", clip(&said.value));
                let fix = "Write a whole number and a unit: 30s, 15m or 2h, at most 24h.";
                self.error(said.at, what, fix);
                longest
            }
        }
    }

    /// One entry becomes one for each of its operations.
    fn entry(&mut self, said: &At<ScopeSaid>, scope: &mut Vec<ScopeRule>) {
        let (at, said) = (said.at, &said.value);
        let named = [said.operation.is_some(), said.operations.is_some(), said.system.is_some()];
        if named.iter().filter(|named| **named).count() != 1 {
            let what = "an entry has one of `operation`, `operations` and `system`";
            return self.error(at, what, "Say what the task may call.");
        }
        if let Some(effects) = said.effects.as_ref().filter(|_| said.system.is_none()) {
            let fix = "Remove it: the operations are named.";
            self.error(effects.at, "`effects` goes with `system`", fix);
        }
        let operations = match (&said.system, &said.operation, &said.operations) {
            (Some(system), ..) => self.of_system(system, said),
            (None, Some(operation), _) => self.expand(operation),
            (None, None, list) => {
                let list = list.iter().flat_map(|list| &list.value);
                let mut all: Vec<usize> = list.flat_map(|one| self.expand(one)).collect();
                all.sort_unstable();
                all.dedup();
                if all.is_empty() {
                    self.error(at, "`operations` is empty", "Name an operation.");
                }
                all
            }
        };
        if let Some(uses) = &said.uses {
            let is_one = operations.len() == 1 && said.system.is_none();
            if !is_one && !operations.is_empty() {
                let what = "`uses` counts one operation, and the entry has several";
                self.error(uses.at, what, "Write an entry of its own for each that is counted.");
            }
            if uses.value == 0 {
                self.error(uses.at, "`uses: 0` permits nothing", "Remove the entry.");
            }
        }
        let resources = match &said.resources {
            Some(said) => self.selector(&said.value),
            None => SelectorRule::default(),
        };
        let mut arguments = BTreeMap::new();
        for (pointer, limit) in &said.arguments.0 {
            if let Some(limit) = self.limit(limit) {
                arguments.insert(pointer.value.clone(), limit);
            }
        }
        // What nobody declares has its own message.
        let declared = resources
            .collections
            .iter()
            .flatten()
            .all(|one| self.build.model.collections.contains_key(one));
        let all: &'a [Operation] = self.operations;
        let mut reached = false;
        let first = scope.len();
        for index in operations {
            let Some(operation) = all.get(index) else { continue };
            let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
            let collections = resources.collections.as_ref();
            let outside =
                collections.is_some_and(|all| collection.is_none_or(|c| !all.contains(c)));
            let restricts = resources != SelectorRule::default();
            if outside || (restricts && collection.is_none()) {
                // Of a system those are meant that act on such resources.
                if said.system.is_none() && declared {
                    let place = said.resources.as_ref().map_or(at, |said| said.at);
                    let what = format!("`{}` acts on no such resource", operation.id);
                    self.error(place, what, "Correct `resources`, or remove the entry.");
                }
                continue;
            }
            reached = true;
            for (pointer, limit) in &said.arguments.0 {
                let types: &[&str] = match limit.value {
                    LimitSaid::OneOf(_) => &["string", "integer", "boolean"],
                    LimitSaid::Range(_) => &["integer"],
                    LimitSaid::Prefix(_) => &["string"],
                };
                self.build.pointer(self.file, operation, pointer, types, true);
            }
            scope.push(ScopeRule {
                operation: operation.id.clone(),
                resources: resources.clone(),
                arguments: arguments.clone(),
                uses: said.uses.as_ref().map(|uses| uses.value),
            });
        }
        let allowed = scope.iter().skip(first).map(|rule| rule.operation.clone()).collect();
        self.entries.push(ScopePlace { operations: allowed, at: at.within(self.file) });
        let known = said
            .system
            .as_ref()
            .filter(|system| declared && self.build.model.systems.contains_key(&system.value));
        if let Some(system) = known.filter(|_| !reached) {
            let what = format!("no operation of `{}` is meant by this entry", clip(&system.value));
            self.error(at, what, "Correct `effects` or `resources`, or classify its operations.");
        }
    }

    /// Positions of the operations of a system that somebody has reviewed, of those effects alone.
    fn of_system(&mut self, system: &At<String>, said: &ScopeSaid) -> Vec<usize> {
        let model = &self.build.model;
        if !model.systems.contains_key(&system.value) {
            let declared = model.systems.iter().map(|(name, s)| (name.as_str(), Some(&s.at)));
            let (what, fix) = unknown("system", &system.value, declared);
            self.error(system.at, what, fix);
            return Vec::new();
        }
        let effects: Option<BTreeSet<Effect>> =
            said.effects.as_ref().map(|list| list.value.iter().map(|e| effect(e.value)).collect());
        let prefix = format!("{}.", system.value);
        let first = self.operations.partition_point(|operation| operation.id < prefix);
        let rest = self.operations.iter().enumerate().skip(first);
        let fits = |operation: &Operation| {
            operation.reviewed
                && effects.as_ref().is_none_or(|all| operation.effects.is_subset(all))
        };
        rest.take_while(|(_, operation)| operation.id.starts_with(&prefix))
            .filter(|(_, operation)| fits(operation))
            .map(|(index, _)| index)
            .collect()
    }

    /// Positions of an operation; of one that is split, of its cases.
    fn expand(&mut self, id: &At<String>) -> Vec<usize> {
        let all = self.operations;
        let find = |id: &str| all.binary_search_by(|o| o.id.as_str().cmp(id)).ok();
        if let Some(split) = self.build.model.splits.get(&id.value) {
            return split.cases.values().filter_map(|id| find(id)).collect();
        }
        if let Some(index) = find(&id.value) {
            return vec![index];
        }
        let declared = all.iter().map(|o| (o.id.as_str(), Some(&o.at)));
        let (what, fix) = unknown("operation", &id.value, declared);
        self.error(id.at, what, fix);
        Vec::new()
    }

    fn selector(&mut self, said: &SelectorSaid) -> SelectorRule {
        for collection in said.collections.iter().flat_map(|list| &list.0) {
            let declared = &self.build.model.collections;
            if !declared.contains_key(&collection.value) {
                let declared = declared.iter().map(|(name, c)| (name.as_str(), Some(&c.at)));
                let (what, fix) = unknown("collection", &collection.value, declared);
                self.error(collection.at, what, fix);
            }
        }
        let names = |list: &Many<At<String>>| list.0.iter().map(|one| one.value.clone()).collect();
        let label_ceiling =
            said.label_ceiling.as_ref().map(|list| self.build.labels(self.file, &list.0));
        let ids = said.ids.as_ref().map(|list| self.slots("ids", list, check_id));
        SelectorRule {
            collections: said.collections.as_ref().map(names),
            ids,
            path_prefix: said.path_prefix.as_ref().and_then(|text| self.slot(text, check_id)),
            label_ceiling,
        }
    }

    fn limit(&mut self, said: &At<LimitSaid>) -> Option<LimitRule> {
        match &said.value {
            LimitSaid::OneOf(list) => {
                Some(LimitRule::OneOf(self.slots("one_of", list, check_text)))
            }
            LimitSaid::Range(range) => match range.as_slice() {
                [least, most] if least <= most => Some(LimitRule::Range(*least, *most)),
                _ => {
                    let fix = "Write `range: [1, 100]`, the smaller number first.";
                    self.error(said.at, "a range is two whole numbers", fix);
                    None
                }
            },
            LimitSaid::Prefix(text) => self.slot(text, check_prefix).map(LimitRule::Prefix),
        }
    }

    fn slots(
        &mut self,
        key: &str,
        list: &Many<At<String>>,
        check: fn(&str) -> Result<(), Misspelling>,
    ) -> BTreeSet<Slot> {
        if let Some(text) = list.0.get(MAX_TEXTS) {
            let what = format!("`{key}` has more than {MAX_TEXTS} values");
            self.error(text.at, what, "Use a prefix instead.");
        }
        list.0.iter().filter_map(|text| self.slot(text, check)).collect()
    }

    /// A text, or the parameter that it stands for.
    fn slot(
        &mut self,
        text: &At<String>,
        check: fn(&str) -> Result<(), Misspelling>,
    ) -> Option<Slot> {
        let raw = text.value.as_str();
        if !raw.contains(['{', '}']) {
            if let Err(why) = check(raw) {
                let what = format!("bad value `{}`: {}", clip(raw), why.what);
                self.error(text.at, what, why.fix);
                return None;
            }
            return Some(Slot::Text(raw.to_owned()));
        }
        let name = raw.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(name) = name.filter(|name| !name.contains(['{', '}'])) else {
            let what = format!("`{}`: a parameter stands for a whole value", clip(raw));
            self.error(text.at, what, "Write `{name}` and nothing beside it.");
            return None;
        };
        if !self.params.contains_key(name) {
            let declared: Vec<String> = self.params.keys().cloned().collect();
            let (what, fix) =
                unknown("parameter", name, declared.iter().map(|name| (name.as_str(), None)));
            self.error(text.at, what, fix);
            return None;
        }
        Some(Slot::Param(name.to_owned()))
    }
}
