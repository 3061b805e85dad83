//! Joins what the files say into one model, and refuses what does not fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use authz_base::pattern::Glob;
use authz_base::record::history::{DAY_MS, KEPT_MS, MAX_KEPT_MS, MEMORY_RANGE_MS};
use authz_base::spelling;
use authz_base::spiffe::check_pattern;

use super::mcp::{McpFile, Pins};
use super::types::{
    AgentMembers, AgentObject, ApprovalWord, CollectionEntry, DenyWord, DestinationEntry,
    FactsFile, IgnoreEntry, IsolatedWord, LabelEntry, LabelWord, Manifest, ModeEntry, OnBehalfWord,
    ReportsWord, RouteEntry, SourceEntry, SpellingWord, SubjectRule, SystemEntry, SystemWord,
    TasksWord, TierEntry,
};
use super::yaml::{At, Entries, Many};
use super::{
    analysis, approvals, budget, classify, denials, exception, mode, recipient_list, sequence,
    template,
};
use crate::bundle::RecipientListFiles;
use crate::destinations::speaks_of;
use crate::diagnostic::{Diagnostics, clip, unknown, unknown_word};
use crate::ids;
use crate::json_schema::{misformed, properties, required};
use crate::model::{
    AgentMemory, ArgumentSource, ClaimTest, Collection, Declared, DenyAs, Derive, DestinationClass,
    DestinationKind, Distinct, IgnoredPart, Isolation, LabelKind, Location, Model, OnBehalf,
    Operation, OriginRules, Reports, ResourcePattern, RoleMembers, RouteSpec, RouteTarget,
    Spelling, SubjectMatch, System, SystemKind, Tier, TierApproval, TierRequirements,
};
use crate::routes::{is_host, refuse_header};

/// Operations of a bundle.
const MOST_OPERATIONS: usize = 50_000;
/// Entries of one key, over all files.
const MOST_ENTRIES: usize = 20_000;
/// Destination patterns: each is compared with those as specific as it.
const MOST_PATTERNS: usize = 1_000;
/// Of how many a label may be gathered before another is derived.
const MOST_GATHERED: u32 = 256;
/// Routes.
const MOST_ROUTES: usize = 20_000;
/// Headers that one system declares.
const MOST_HEADERS: usize = 64;

/// A model under construction.
pub(super) struct ModelBuilder<'a> {
    pub(super) model: &'a mut Model,
    pub(super) found: &'a mut Diagnostics,
    /// Where each id was first declared, by key.
    places: BTreeMap<(&'static str, String), Location>,
    /// Entries of the recipient lists that are files of the bundle.
    pub(super) recipient_list_files: RecipientListFiles,
    /// Operations of tools that no one accepted.
    pub(super) unaccepted: BTreeSet<String>,
    /// Operations of tools that are not the ones that were accepted.
    pub(super) drifted: BTreeSet<String>,
}

impl<'a> ModelBuilder<'a> {
    fn new(model: &'a mut Model, found: &'a mut Diagnostics) -> Self {
        let (places, recipient_list_files, unaccepted, drifted) = Default::default();
        Self { model, found, places, recipient_list_files, unaccepted, drifted }
    }
}

/// Settings of the bundle that name declarations of its files.
#[derive(Debug, Default)]
pub(super) struct DeferredKeys {
    /// File that has the settings.
    file: String,
    /// Systems of `show_reason`.
    shown: Vec<(String, Location)>,
    /// Systems of `record_texts`.
    recorded: Vec<(String, Location)>,
    tasks: template::TaskKeys,
}

/// Takes over name and settings of the bundle. Returns the keys that are checked after the files' other keys.
pub(super) fn manifest(
    file: &str,
    said: Manifest,
    model: &mut Model,
    found: &mut Diagnostics,
) -> DeferredKeys {
    let mut build = ModelBuilder::new(model, found);
    build.id(file, "bundle name", &said.name, ids::refuse);
    build.model.name = said.name.value;
    build.model.revision = match said.revision {
        Some(revision) => {
            build.id(file, "revision", &revision, ids::refuse);
            revision.value
        }
        None => super::revision_of(&build.model.digest),
    };
    let place = |at: super::Mark| at.within(file);
    build.model.places.tasks = said.tasks.as_ref().map(|word| place(word.at));
    build.model.places.implicit = said.implicit_tasks.as_ref().map(|said| place(said.at));
    let word = said.tasks.map(|word| word.value);
    build.model.tasks.optional = word == Some(TasksWord::Optional);
    build.later(file, "sequence", said.sequence.as_ref());
    exception::days(&mut build, file, said.max_exception_days.as_ref());
    build.model.deny_as = match said.mcp.and_then(|mcp| mcp.deny_as) {
        None | Some(DenyWord::ToolResult) => DenyAs::ToolResult,
        Some(DenyWord::JsonrpcError) => DenyAs::JsonrpcError,
        Some(DenyWord::Http) => DenyAs::Http,
    };
    DeferredKeys {
        file: file.to_owned(),
        shown: places_of(said.show_reason, file),
        recorded: places_of(said.record_texts, file),
        tasks: template::TaskKeys {
            taskless_tier: said.taskless_tier,
            implicit: said.implicit_tasks,
        },
    }
}

fn places_of(names: Many<At<String>>, file: &str) -> Vec<(String, Location)> {
    names.0.into_iter().map(|name| (name.value, name.at.within(file))).collect()
}

/// The YAML files of a bundle beside `bundle.yaml`.
pub(super) struct BundleFacts<'a> {
    pub(super) files: Vec<(&'a str, FactsFile)>,
    pub(super) catalogs: Vec<(&'a str, McpFile)>,
    pub(super) deferred: DeferredKeys,
    /// All files of the bundle, by path.
    pub(super) all: &'a BTreeMap<String, Vec<u8>>,
}

impl BundleFacts<'_> {
    /// Takes over all files, in the order in which their keys refer to each other.
    ///
    /// Returns the entries of the recipient lists that are files of the bundle.
    pub(super) fn build(self, model: &mut Model, found: &mut Diagnostics) -> RecipientListFiles {
        let Self { mut files, catalogs, deferred, all } = self;
        files.iter_mut().for_each(|(_, facts)| rules_of_operations(facts));
        let rules = files.iter().flat_map(|(_, facts)| &facts.classify);
        model.classified.extend(rules.map(|rule| rule.value.r#match.value.clone()));
        model.tiers = Tier::ALL.map(tier_default);
        let mut build = ModelBuilder::new(model, found);
        let mode = build.labels_and_singles(&files);
        for (file, facts) in &files {
            build.derived(file, &facts.labels);
            recipient_list::apply(&mut build, file, &facts.recipient_lists, all);
        }
        for (file, said) in catalogs {
            build.mcp(file, said);
        }
        let mut pins = Pins::new();
        for (file, facts) in &files {
            build.catalog(file, &facts.catalog);
            build.accepted(file, &facts.accepted, &mut pins);
            build.collections(file, &facts.resources);
            build.destinations(file, &facts.destinations);
            build.agents(file, &facts.agents);
            build.subjects(file, &facts.subjects);
            build.tiers(file, &facts.tiers);
        }
        if let Some((file, said)) = mode {
            mode::apply(&mut build, file, said);
        }
        let mut approvals_at = None;
        for (file, facts) in &files {
            approvals::apply(&mut build, &mut approvals_at, file, facts.approvals.as_ref());
        }
        build.bounds();
        build.ties();
        build.model.show_reason = build.declared_systems(deferred.shown);
        build.model.record_texts = build.declared_systems(deferred.recorded);
        build.model.operations.sort_by(|a, b| a.id.cmp(&b.id));
        build.pin(pins);
        classify::apply(&mut build, files.iter().map(|(file, facts)| (*file, &*facts.classify)));
        build.worklist();
        for (file, facts) in &files {
            template::apply(&mut build, file, &facts.templates);
        }
        for (file, facts) in &files {
            sequence::apply(&mut build, file, &facts.sequences);
        }
        for (file, facts) in &files {
            budget::apply(&mut build, file, &facts.budgets);
            exception::apply(&mut build, file, &facts.exceptions);
        }
        for (file, facts) in &files {
            analysis::assertions(&mut build, file, facts.analysis.as_ref());
        }
        for (file, facts) in &files {
            analysis::suppressions(&mut build, file, facts.analysis.as_ref());
        }
        template::tasks(&mut build, &deferred.file, &deferred.tasks);
        build.routes(files.into_iter().map(|(file, facts)| (file, facts.routes)));
        build.recipient_list_files
    }
}

/// Moves the meaning that stands beside the schemas of operations to the rules of `classify`.
///
/// An operation that has both then has two exact rules, which is refused with both places.
fn rules_of_operations(facts: &mut FactsFile) {
    for (system, entry) in &mut facts.catalog.0 {
        // Operations of an MCP server do not stand here; the entry is refused.
        if entry.kind.value == SystemWord::Mcp {
            continue;
        }
        for (name, operation) in &mut entry.operations.0 {
            let id = format!("{}.{}", system.value, name.value);
            // An id that no operation can have is refused where the operation is declared.
            if ids::refuse_operation(&id).is_some() {
                continue;
            }
            let rule = operation.take_rule(At { value: id, at: name.at });
            facts.classify.extend(rule.map(|value| At { value, at: name.at }));
        }
    }
}

impl ModelBuilder<'_> {
    /// Takes over the keys that a bundle has once, and the labels, which the other keys name. Returns `mode`.
    fn labels_and_singles<'f>(
        &mut self,
        files: &'f [(&str, FactsFile)],
    ) -> Option<(&'f str, &'f At<ModeEntry>)> {
        let mut mode = None;
        let mut counted = None;
        for (file, facts) in files {
            denials::apply(self, &mut counted, file, facts.denials.as_ref());
            mode::once(self, &mut mode, file, facts.mode.as_ref());
            for (id, label) in &facts.labels.0 {
                let Some(at) = self.declare(file, "label", id, ids::refuse) else { continue };
                let value = match label.kind {
                    LabelWord::Confidentiality => LabelKind::Confidentiality,
                    LabelWord::Trust => LabelKind::Trust,
                };
                self.model.labels.insert(id.value.clone(), Declared { value, at });
                if let Some(word) = label.tier {
                    self.model.raises.labels.insert(id.value.clone(), classify::tier(word));
                }
            }
        }
        mode
    }

    /// Refuses a key of a later version.
    pub(super) fn later<T>(&mut self, file: &str, key: &str, said: Option<&At<T>>) {
        if let Some(said) = said {
            let what = format!("`{key}` is not in this version");
            self.found.error(&said.at.within(file), what, "Remove it.");
        }
    }

    fn id(
        &mut self,
        file: &str,
        kind: &str,
        id: &At<String>,
        refuse: fn(&str) -> Option<&'static str>,
    ) -> bool {
        if let Some(why) = refuse(&id.value) {
            let what = format!("bad {kind} `{}`: {why}", clip(&id.value));
            self.found.error(&id.at.within(file), what, "Rename it.");
            return false;
        }
        true
    }

    /// The place of an id that is well formed and new; none where an error was found.
    pub(super) fn declare(
        &mut self,
        file: &str,
        kind: &'static str,
        id: &At<String>,
        refuse: fn(&str) -> Option<&'static str>,
    ) -> Option<Location> {
        if !self.id(file, kind, id, refuse) {
            return None;
        }
        let at = id.at.within(file);
        let key = (kind, id.value.clone());
        if let Some(first) = self.places.get(&key) {
            let what = format!(
                "{kind} `{}` is declared twice; first in {}:{}",
                clip(&id.value),
                first.file,
                first.line
            );
            self.found.error(&at, what, "Keep one of the two.");
            return None;
        }
        self.places.insert(key, at.clone());
        Some(at)
    }

    fn catalog(&mut self, file: &str, said: &Entries<SystemEntry>) {
        for (id, entry) in &said.0 {
            if entry.kind.value == SystemWord::Mcp {
                self.mcp_entry(file, id, entry);
                continue;
            }
            let Some(at) = self.declare(file, "system", id, ids::refuse_system) else { continue };
            let origin = entry.origin.as_ref().map_or("", |o| &o.value);
            if let Some(origin) = &entry.origin {
                self.origin(file, origin);
            }
            for (name, operation) in &entry.operations.0 {
                let full = At { value: format!("{}.{}", id.value, name.value), at: name.at };
                let Some(at) = self.declare(file, "operation", &full, ids::refuse_operation) else {
                    continue;
                };
                self.later(file, "provider", operation.provider.as_ref());
                let input = match &operation.input {
                    Some(input) => {
                        self.input(file, &full.value, input);
                        input.value.clone()
                    }
                    None => serde_json::json!({"type": "object", "additionalProperties": false}),
                };
                let input = Arc::new(input);
                self.model.operations.push(Operation {
                    id: full.value,
                    system: id.value.clone(),
                    name: name.value.clone(),
                    effects: BTreeSet::new(),
                    tier: Tier::Critical,
                    reviewed: false,
                    drifted: false,
                    yields: Default::default(),
                    resource: None,
                    destination: None,
                    origins: OriginRules::default(),
                    input,
                    abortable: false,
                    at,
                });
            }
            let system = System {
                kind: SystemKind::Http,
                origin: origin.to_owned(),
                headers: self.headers(file, &entry.headers),
                reports: Self::reports(entry.reports.as_ref()),
                at,
            };
            self.model.systems.insert(id.value.clone(), system);
        }
    }

    /// Reporter of the results of a system's operations.
    pub(super) fn reports(said: Option<&At<ReportsWord>>) -> Reports {
        match said.map(|word| word.value) {
            None | Some(ReportsWord::Never) => Reports::Never,
            Some(ReportsWord::Sdk) => Reports::Sdk,
            Some(ReportsWord::AccessLog) => Reports::AccessLog,
        }
    }

    /// Takes over labels that join by themselves, once all labels are known.
    fn derived(&mut self, file: &str, said: &Entries<LabelEntry>) {
        let is_derived =
            |id: &str| said.0.iter().any(|(name, one)| name.value == id && one.derive.is_some());
        for (id, entry) in &said.0 {
            let Some(At { value: derive, at }) = &entry.derive else { continue };
            let at = at.within(file);
            let (distinct, least) = match (&derive.sources, &derive.resources) {
                (Some(least), None) => (Distinct::Sources, least),
                (None, Some(least)) => (Distinct::Resources, least),
                _ => {
                    let what = "`derive` has `from`, and either `sources` or `resources`";
                    self.found.error(&at, what, "Write `derive: {from: pii, resources: 100}`.");
                    continue;
                }
            };
            if least.value < 2 || least.value > MOST_GATHERED {
                let what = format!(
                    "a label is derived from 2 to {MOST_GATHERED}, not from {}",
                    least.value
                );
                self.found.error(&least.at.within(file), what, "Write another number.");
            }
            let from = self.labels(file, std::slice::from_ref(&derive.from));
            let Some(from) = from.into_iter().next() else { continue };
            if is_derived(&from) || self.model.derives.contains_key(&from) {
                let what = format!("`{from}` is derived itself");
                self.found.error(
                    &derive.from.at.within(file),
                    what,
                    "Name the label that it is derived from.",
                );
                continue;
            }
            let rule = Derive { from, distinct, least: least.value };
            self.model.derives.insert(id.value.clone(), rule);
        }
    }

    /// Checks an origin; an empty one says nothing.
    pub(super) fn origin(&mut self, file: &str, origin: &At<String>) {
        if !origin.value.is_empty() && !is_origin(&origin.value) {
            let what = format!("`{}` is no origin", clip(&origin.value));
            let fix = "Write `https://host` or `https://host:port`, in lower case, without a path.";
            self.found.error(&origin.at.within(file), what, fix);
        }
    }

    /// The headers that a system declares, sorted.
    pub(super) fn headers(&mut self, file: &str, declared: &[At<String>]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in declared {
            let shown = clip(&name.value);
            let (what, fix) = if let Some(fix) = refuse_header(&name.value) {
                (format!("`{shown}` is not a header that a system can declare"), fix)
            } else if names.contains(&name.value) {
                (format!("the header `{shown}` stands twice"), "Remove one of the two.")
            } else if names.len() >= MOST_HEADERS {
                (format!("more than {MOST_HEADERS} headers"), "Remove some.")
            } else {
                names.push(name.value.clone());
                continue;
            };
            self.found.error(&name.at.within(file), what, fix);
        }
        names.sort_unstable();
        names
    }

    fn input(&mut self, file: &str, id: &str, input: &At<serde_json::Value>) {
        let object = input.value.get("type").and_then(serde_json::Value::as_str) == Some("object");
        if !object {
            let what = format!("the input of `{id}` is no object schema");
            let fix = "Write `input: {type: object, properties: {…}}`.";
            self.found.error(&input.at.within(file), what, fix);
        }
        if let Some((pointer, problem)) = misformed(&input.value) {
            let what = format!("the input of `{id}`: `{pointer}` {problem}");
            let fix = "Write it as JSON Schema has it, for example `{type: object, properties: {id: {type: string}}, required: [id]}`.";
            self.found.error(&input.at.within(file), what, fix);
        }
        for name in required(&input.value) {
            let declared = properties(&input.value);
            if !declared.clone().any(|n| n == name) {
                let (what, fix) = unknown("argument", name, declared.map(|n| (n, None)));
                let what = format!("`required` of `{id}`: {what}");
                self.found.error(&input.at.within(file), what, fix);
            }
        }
    }

    fn collections(&mut self, file: &str, said: &Entries<CollectionEntry>) {
        for (id, entry) in &said.0 {
            let Some(at) = self.declare(file, "collection", id, ids::refuse) else { continue };
            let labels = self.labels(file, &entry.labels);
            let said = entry.keeps_written.as_ref();
            let keeps_ms = self.keeps(file, said);
            let keeps_at = said.map(|said| said.at.within(file));
            let spelling = match entry.spelling {
                SpellingWord::Exact => Spelling::Exact,
                SpellingWord::Fold => Spelling::Fold,
            };
            let collection = Collection { labels, keeps_ms, keeps_at, spelling, at };
            self.model.collections.insert(id.value.clone(), collection);
            for pattern in &entry.patterns {
                let segments: Vec<&str> = pattern.r#match.value.split('/').collect();
                let last = segments.len() - 1;
                let fine = |(i, s): (usize, &&str)| {
                    *s == "*" || (*s == "**" && i == last) || !s.contains('*')
                };
                let place = pattern.r#match.at.within(file);
                if !segments.iter().enumerate().all(fine) {
                    let what = format!("bad pattern `{}`", clip(&pattern.r#match.value));
                    let fix = "`*` stands for one whole segment between `/`, a last `**` for any number of them.";
                    self.found.error(&place, what, fix);
                } else if let Err(why) = spelling::check_id(&pattern.r#match.value) {
                    let what =
                        format!("bad pattern `{}`: {}", clip(&pattern.r#match.value), why.what);
                    self.found.error(&place, what, why.fix);
                }
                let labels = self.labels(file, &pattern.labels);
                self.model.resource_patterns.push(ResourcePattern {
                    collection: id.value.clone(),
                    pattern: pattern.r#match.value.clone(),
                    labels,
                });
            }
        }
    }

    /// Lifetime of the labels on written data, in milliseconds. `None`: the data keeps no labels.
    fn keeps(&mut self, file: &str, said: Option<&At<String>>) -> Option<i64> {
        let Some(said) = said.filter(|said| said.value != "none") else {
            return said.is_none().then_some(KEPT_MS);
        };
        let span = duration(&said.value).and_then(|span| i64::try_from(span.as_millis()).ok());
        let kept = span.filter(|span| *span <= MAX_KEPT_MS);
        if kept.is_none() {
            let what = match span {
                Some(_) => format!("`keeps_written` is longer than {} days", MAX_KEPT_MS / DAY_MS),
                None => format!("`{}` is no duration", clip(&said.value)),
            };
            self.found.error(&said.at.within(file), what, "Write 12h, 90d, or none.");
        }
        kept
    }

    fn destinations(&mut self, file: &str, said: &Entries<DestinationEntry>) {
        for (id, entry) in &said.0 {
            let Some(at) = self.declare(file, "destination class", id, ids::refuse) else {
                continue;
            };
            let recipient_lists = self.recipient_lists(file, &entry.recipient_list);
            if entry.r#match.0.is_empty() && entry.recipient_list.0.is_empty() {
                let what = format!("destination class `{}` matches nothing", id.value);
                self.found.error(&at, what, "Add `match: …` or `recipient_list: …`.");
            }
            for pattern in &entry.r#match.0 {
                let odd = |b: u8| !b.is_ascii_graphic();
                let text = &pattern.value;
                if text.is_empty() || text.len() > 256 || text.bytes().any(odd) {
                    let what = format!("bad destination pattern `{}`", clip(text));
                    let fix = "Use 1 to 256 printable ASCII characters; `*` stands for any.";
                    self.found.error(&pattern.at.within(file), what, fix);
                }
                let key = ("destination pattern", text.to_ascii_lowercase());
                let at = pattern.at.within(file);
                if let Some(first) = self.places.get(&key) {
                    let what = format!(
                        "destination pattern `{}` stands twice; first in {}:{}",
                        clip(text),
                        first.file,
                        first.line
                    );
                    self.found.error(&at, what, "Keep one of the two.");
                } else {
                    self.places.insert(key, at);
                }
            }
            for label in &entry.clearance {
                let trust = self.model.labels.get(&label.value).map(|l| l.value);
                if trust == Some(LabelKind::Trust) {
                    let what = format!("`{}` is a trust label", clip(&label.value));
                    let fix = "A clearance lists confidentiality labels.";
                    self.found.error(&label.at.within(file), what, fix);
                }
            }
            let clearance = self.labels(file, &entry.clearance);
            let patterns = entry.r#match.0.iter().map(|p| p.value.clone()).collect();
            let class = DestinationClass { patterns, recipient_lists, clearance, at };
            self.model.destinations.insert(id.value.clone(), class);
            if let Some(word) = entry.tier {
                self.model.raises.classes.insert(id.value.clone(), classify::tier(word));
            }
        }
    }

    /// Refuses two patterns of different classes that are as specific as each other and can match one destination.
    fn ties(&mut self) {
        let mut by_size: BTreeMap<usize, Vec<(Glob, &str, &str)>> = BTreeMap::new();
        for (class, said) in &self.model.destinations {
            for pattern in &said.patterns {
                let glob = Glob::new(&pattern.to_ascii_lowercase());
                if !glob.is_exact() {
                    by_size.entry(glob.fixed()).or_default().push((glob, pattern, class));
                }
            }
        }
        if by_size.values().map(Vec::len).sum::<usize>() > MOST_PATTERNS {
            let what = format!("more than {MOST_PATTERNS} destination patterns with `*`");
            return self.found.error(&super::whole("bundle.yaml"), what, "Use exact destinations.");
        }
        for group in by_size.values() {
            for (i, (a, a_text, a_class)) in group.iter().enumerate() {
                for (b, b_text, b_class) in group.iter().take(i) {
                    // The same pattern twice has been refused already.
                    let same = a_class == b_class || a == b;
                    if same || !same_kind(a_text, b_text) || !a.overlaps(b) {
                        continue;
                    }
                    let place = |text: &str| {
                        let key = ("destination pattern", text.to_ascii_lowercase());
                        self.places.get(&key).cloned().unwrap_or_default()
                    };
                    let (mut first, mut second) =
                        ((place(a_text), a_text), (place(b_text), b_text));
                    if first.0 > second.0 {
                        std::mem::swap(&mut first, &mut second);
                    }
                    let what = format!(
                        "`{}` is as specific as `{}` ({}:{}), and both match some destinations",
                        clip(second.1),
                        clip(first.1),
                        first.0.file,
                        first.0.line
                    );
                    self.found.error(&second.0, what, "Make one of the two more specific.");
                }
            }
        }
    }

    fn agents(&mut self, file: &str, said: &Entries<AgentMembers>) {
        for (role, members) in &said.0 {
            let Some(at) = self.declare(file, "role", role, ids::refuse) else { continue };
            let (list, settings) = match members {
                AgentMembers::List(list) => (list, RoleMembers::default()),
                AgentMembers::Object(object) => {
                    self.later(file, "limits", object.limits.as_ref());
                    let memory = self.agent_memory(file, object);
                    let subject = object.subject.map(|word| match word {
                        OnBehalfWord::Required => OnBehalf::Required,
                        OnBehalfWord::Optional => OnBehalf::Optional,
                        OnBehalfWord::None => OnBehalf::None,
                    });
                    let settings = RoleMembers {
                        memory,
                        harness: object.harness == Some(true),
                        subject,
                        has_controls: !object.controls.0.is_empty(),
                        ..RoleMembers::default()
                    };
                    (&object.r#match.0, settings)
                }
            };
            if list.is_empty() {
                let what = format!("role `{}` names no agent", role.value);
                self.found.error(&at, what, "Add a SPIFFE id, or remove the role.");
            }
            for id in list {
                if let Err(why) = check_pattern(&id.value) {
                    let what = format!("bad SPIFFE id `{}`: {why}", clip(&id.value));
                    let fix = "Write `spiffe://trust.domain/ns/*/sa/name`.";
                    self.found.error(&id.at.within(file), what, fix);
                }
            }
            let roles = self.model.roles.entry(role.value.clone()).or_default();
            roles.at = at;
            roles.memory = settings.memory;
            roles.harness = settings.harness;
            roles.subject = settings.subject;
            roles.has_controls = settings.has_controls;
            roles.agents = list
                .iter()
                .map(|id| Declared { value: id.value.clone(), at: id.at.within(file) })
                .collect();
        }
    }

    fn agent_memory(&mut self, file: &str, object: &AgentObject) -> AgentMemory {
        let isolated = match object.isolated {
            None | Some(IsolatedWord::None) => Isolation::None,
            Some(IsolatedWord::PerSubject) => Isolation::PerSubject,
            Some(IsolatedWord::PerTask) => Isolation::PerTask,
        };
        let Some(text) = &object.memory else {
            return AgentMemory { isolated, ..AgentMemory::default() };
        };
        let span = duration(&text.value).and_then(|span| i64::try_from(span.as_millis()).ok());
        match span.filter(|ms| MEMORY_RANGE_MS.contains(ms)) {
            Some(ms) => AgentMemory { isolated, ms },
            None => {
                let what = format!("`memory: {}` is not a time from 1m to 30d", clip(&text.value));
                self.found.error(&text.at.within(file), what, "Write for example `24h`.");
                AgentMemory { isolated, ..AgentMemory::default() }
            }
        }
    }

    fn subjects(&mut self, file: &str, said: &Entries<Many<At<SubjectRule>>>) {
        for (role, rules) in &said.0 {
            // A role may be held by agents and by subjects: each of the two keys may name it once.
            let Some(at) = self.declare(file, "subject role", role, ids::refuse) else { continue };
            if rules.0.is_empty() {
                let what = format!("role `{}` names no subject", role.value);
                self.found.error(&at, what, "Add a condition, or remove the role.");
            }
            let mut subjects = Vec::new();
            for rule in &rules.0 {
                let at = rule.at.within(file);
                let said = &rule.value;
                self.id(file, "issuer alias", &said.issuer, ids::refuse);
                let text = |at: &At<String>| at.value.clone();
                let test = match (&said.claim, &said.contains, &said.equals) {
                    (None, None, None) => ClaimTest::Any,
                    (Some(claim), Some(value), None) if claim.value != "sub" => {
                        ClaimTest::Contains(text(claim), text(value))
                    }
                    (Some(claim), None, Some(value)) => ClaimTest::Equals(text(claim), text(value)),
                    (Some(claim), Some(_), None) => {
                        let what = format!("`{}` is a text, not a list", claim.value);
                        self.found.error(&at, what, "Write `equals` instead of `contains`.");
                        continue;
                    }
                    _ => {
                        let what = "a condition has `claim` with either `contains` or `equals`, or none of them";
                        let fix = "Write `{issuer: corp, claim: groups, contains: staff}`.";
                        self.found.error(&at, what, fix);
                        continue;
                    }
                };
                subjects.push(SubjectMatch { issuer: said.issuer.value.clone(), test, at });
            }
            let members = self.model.roles.entry(role.value.clone()).or_default();
            members.subjects = subjects;
            if members.at == Location::default() {
                members.at = at;
            }
        }
    }

    fn tiers(&mut self, file: &str, said: &Entries<TierEntry>) {
        for (id, entry) in &said.0 {
            let Some(index) = Tier::ALL.iter().position(|tier| tier.as_str() == id.value) else {
                let (what, fix) = unknown_word("tier", &id.value, Tier::ALL.map(Tier::as_str));
                self.found.error(&id.at.within(file), what, fix);
                continue;
            };
            let Some(at) = self.declare(file, "tier", id, ids::refuse) else { continue };
            self.model.places.tiers.extend(Tier::ALL.get(index).map(|tier| (*tier, at)));
            let max_age = entry.max_age.as_ref().and_then(|text| {
                let duration = duration(&text.value);
                if duration.is_none() {
                    let what = format!("`{}` is no duration", clip(&text.value));
                    let fix =
                        "Write a whole number and a unit: 30s, 15m, 24h or 7d, at most 3650d.";
                    self.found.error(&text.at.within(file), what, fix);
                }
                duration
            });
            if let Some(confidence) = entry.confidence.as_ref().filter(|c| c.value > 100) {
                let what = format!("confidence {} is above 100", confidence.value);
                self.found.error(&confidence.at.within(file), what, "Write 0 to 100.");
            }
            let is_high = Tier::ALL.get(index).is_none_or(|tier| *tier >= Tier::High);
            if let Some(durable) = entry.durable_audit.as_ref().filter(|one| is_high && !one.value)
            {
                let what = format!("records of tier `{}` are always durable", id.value);
                self.found.error(&durable.at.within(file), what, "Remove `durable_audit`.");
            }
            // What an entry does not say keeps the tier's default.
            let default = tier_default(Tier::ALL.get(index).copied().unwrap_or(Tier::Critical));
            if let Some(tier) = self.model.tiers.get_mut(index) {
                *tier = TierRequirements {
                    bound: entry.bound.unwrap_or(default.bound),
                    max_age: max_age.or(default.max_age),
                    confidence: entry.confidence.as_ref().map_or(default.confidence, |c| c.value),
                    approval: entry.approval.map_or(default.approval, approval),
                    subject: entry.subject.unwrap_or(default.subject),
                    durable_audit: is_high
                        || entry.durable_audit.as_ref().is_some_and(|one| one.value),
                };
            }
        }
    }

    fn bounds(&mut self) {
        let model = &self.model;
        let patterns = model.resource_patterns.len() + model.collections.len();
        let members: usize =
            model.roles.values().map(|role| role.agents.len() + role.subjects.len()).sum();
        for (what, count, most) in [
            ("operations", model.operations.len(), MOST_OPERATIONS),
            ("systems", model.systems.len(), MOST_ENTRIES),
            ("labels", model.labels.len(), MOST_ENTRIES),
            ("collections and patterns over resources", patterns, MOST_ENTRIES),
            ("destination classes", model.destinations.len(), MOST_ENTRIES),
            ("members of roles", members, 5 * MOST_ENTRIES),
        ] {
            if count > most {
                let what = format!("more than {most} {what}");
                self.found.error(&super::whole("bundle.yaml"), what, "Split the bundle.");
            }
        }
    }

    /// The systems of a setting, each of which must be declared.
    fn declared_systems(&mut self, systems: Vec<(String, Location)>) -> BTreeSet<String> {
        for (system, at) in &systems {
            if !self.model.systems.contains_key(system) {
                let declared = self.model.systems.iter().map(|(n, s)| (n.as_str(), Some(&s.at)));
                let (what, fix) = unknown("system", system, declared);
                self.found.error(at, what, fix);
            }
        }
        systems.into_iter().map(|(system, _)| system).collect()
    }

    /// The target of a route. `None`: it has a defect, which is reported.
    fn route_target(
        &mut self,
        file: &str,
        at: &Location,
        route: &RouteEntry,
    ) -> Option<RouteTarget> {
        let (method, operation) = match (&route.method, &route.operation, &route.mcp) {
            (Some(method), Some(operation), None) => (method, operation),
            (None, None, Some(system)) if route.arguments.0.is_empty() => {
                for ignore in &route.ignore {
                    if matches!(ignore.value, IgnoreEntry::Json(_) | IgnoreEntry::Body) {
                        let what = "the body of an MCP endpoint is its message";
                        self.found.error(&ignore.at.within(file), what, "Remove it.");
                    }
                }
                return self.endpoint(system, file);
            }
            _ => {
                let what = "a route has `method` and `operation`, or `mcp` and no `arguments`";
                let fix =
                    "Write `{method: GET, path: …, operation: …}` or `{path: …, mcp: system}`.";
                self.found.error(at, what, fix);
                return None;
            }
        };
        if self.model.operation(&operation.value).is_none() {
            let names = self.model.operations.iter().map(|o| (o.id.as_str(), Some(&o.at)));
            let (what, fix) = unknown("operation", &operation.value, names);
            self.found.error(&operation.at.within(file), what, fix);
            return None;
        }
        let method = Declared { value: method.value.clone(), at: method.at.within(file) };
        Some(RouteTarget::Operation { method, id: operation.value.clone() })
    }

    fn routes<'f>(&mut self, files: impl Iterator<Item = (&'f str, Vec<At<RouteEntry>>)>) {
        let mut specs = Vec::new();
        for (file, routes) in files {
            for route in routes {
                let (at, route) = (route.at.within(file), route.value);
                self.later(file, "forward", route.forward.as_ref());
                let place = |at: super::Mark| at.within(file);
                let Some(target) = self.route_target(file, &at, &route) else { continue };
                specs.push(RouteSpec {
                    host: route.host.map(|h| Declared { at: place(h.at), value: h.value }),
                    path: Declared { at: place(route.path.at), value: route.path.value },
                    headers: (route.headers.0.into_iter())
                        .map(|(n, v)| (Declared { at: place(n.at), value: n.value }, v.value))
                        .collect(),
                    target,
                    arguments: (route.arguments.0.into_iter())
                        .map(|(name, from)| {
                            let at = place(name.at);
                            (name.value, Declared { at, value: source(from.value) })
                        })
                        .collect(),
                    ignore: (route.ignore.into_iter())
                        .map(|i| Declared { at: place(i.at), value: ignore(i.value) })
                        .collect(),
                    content_types: (route.content_types.into_iter())
                        .map(|kind| Declared { at: place(kind.at), value: kind.value })
                        .collect(),
                    forward_authorization: route.forward_authorization,
                    at,
                });
            }
        }
        if specs.len() > MOST_ROUTES {
            let what = format!("more than {MOST_ROUTES} routes");
            return self.found.error(&super::whole("bundle.yaml"), what, "Split the bundle.");
        }
        self.model.routes = specs;
    }
}

/// Default requirements of a tier.
pub(super) fn tier_default(tier: Tier) -> TierRequirements {
    match tier {
        Tier::Low | Tier::Standard => TierRequirements::default(),
        Tier::High => {
            TierRequirements { bound: true, durable_audit: true, ..TierRequirements::default() }
        }
        Tier::Critical => TierRequirements {
            bound: true,
            approval: TierApproval::Approve,
            durable_audit: true,
            ..TierRequirements::default()
        },
    }
}

fn source(said: SourceEntry) -> ArgumentSource {
    match said {
        SourceEntry::Path(name) => ArgumentSource::Path(name),
        SourceEntry::Query(name) => ArgumentSource::Query(name),
        SourceEntry::Header(name) => ArgumentSource::Header(name),
        SourceEntry::Json(pointer) => ArgumentSource::Json(pointer),
    }
}

fn ignore(said: IgnoreEntry) -> IgnoredPart {
    match said {
        IgnoreEntry::Path(name) => IgnoredPart::Path(name),
        IgnoreEntry::Query(name) => IgnoredPart::Query(name),
        IgnoreEntry::Json(pointer) => IgnoredPart::Json(pointer),
        IgnoreEntry::Body => IgnoredPart::Body,
    }
}

const fn approval(word: ApprovalWord) -> TierApproval {
    match word {
        ApprovalWord::None => TierApproval::None,
        ApprovalWord::Confirm => TierApproval::Confirm,
        ApprovalWord::Approve => TierApproval::Approve,
        ApprovalWord::TwoPerson => TierApproval::TwoPerson,
    }
}

/// Whether two destination patterns can speak of one kind of destination.
fn same_kind(a: &str, b: &str) -> bool {
    [
        DestinationKind::Email,
        DestinationKind::UrlHost,
        DestinationKind::Iban,
        DestinationKind::Account,
        DestinationKind::Path,
    ]
    .into_iter()
    .any(|kind| speaks_of(a, kind) && speaks_of(b, kind))
}

/// `scheme://host[:port]`, lower case, nothing more.
fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    rest.len() <= 260 && is_host(rest)
}

/// `30s`, `15m`, `24h`, `7d`; at most ten years.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?;
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let total = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (plain && total > 0 && total <= 3650 * 86_400).then(|| Duration::from_secs(total))
}
