//! Labels of data that each way can have read, by a fixpoint.
//!
//! The fixpoint follows the data itself, and beside it the labels that Authz keeps for it. Data is *marked* where Authz has its
//! label, and *unmarked* where the data passed a place that keeps no labels.
//!
//! INVARIANT (over, never under): a label stays in a set once it is in it, and an operation that could be permitted counts as
//! called.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decide::Prospects;
use authz_kernel::decision::{CallerProof, Facts, Outcome, ProofMethod, ReasonCode, Time};
use authz_kernel::model::{
    BREAKGLASS, BREAKGLASS_TIER, Effect, LabelKind, Model, Operation, Tier, TierApproval,
};
use authz_kernel::plan::Plan;
use authz_kernel::schema::OWN_SYSTEM;
use authz_kernel::soften::{CallPlace, RefusedCall};
use authz_kernel::task::{
    Breakglass, BreakglassConfirmation, BreakglassPerson, Breakglasses, TaskView, WordRecords,
};

use super::guard::{CallFacts, Conditions, Fires, PartialSet, PrincipalFacts, ResourceFacts};
use super::ways::{Parties, Party, Way, Ways};

/// Whether Authz has the label of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// Authz has it.
    Marked,
    /// The data passed a place that keeps no labels.
    Unmarked,
}

/// Labels of data, each marked or not.
pub type Labels = BTreeSet<(String, Mark)>;

/// Place that data is written to and read from: a system, or a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Store {
    /// Id of the system.
    pub system: String,
    /// Collection. `None`: the operation names no resource.
    pub collection: Option<String>,
}

impl Store {
    /// The store of an operation.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        let collection = operation.resource.as_ref().map(|rule| rule.collection.clone());
        Self { system: operation.system.clone(), collection }
    }

    /// Whether data that is written here can be read there.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        match (&self.collection, &other.collection) {
            (Some(one), Some(two)) => one == two,
            _ => self.system == other.system,
        }
    }

    /// Whether Authz keeps labels of data that is written here and read there.
    #[must_use]
    pub fn keeps(&self, other: &Self, model: &Model) -> bool {
        let (Some(one), Some(two)) = (&self.collection, &other.collection) else { return false };
        let keeps =
            model.collections.get(one).is_some_and(|collection| collection.keeps_ms.is_some());
        one == two && keeps
    }
}

/// Data that an operation reads, stores and sends.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Position in [`Plan::operations`].
    pub operation: usize,
    /// Labels that the call can bring: those that it yields, and those of its resource.
    pub gives: BTreeSet<String>,
    /// Labels that a resource of the call can have, where the call has a destination. The data of the resource goes out with it,
    /// also where the call returns none.
    pub resource_labels: BTreeSet<String>,
    /// Labels of the data that the call itself brings and sends. Authz has them after the call only.
    pub yields_sent: BTreeSet<String>,
    /// It returns data.
    pub reads: bool,
    /// It stores data.
    pub writes: bool,
    /// Its store.
    pub store: Store,
    /// Classes of destinations that it can have; empty without a destination.
    pub classes: Vec<String>,
}

/// Labels by way, agent and store.
#[derive(Debug)]
pub struct Taints<'a> {
    plan: &'a Plan,
    conditions: &'a Conditions<'a>,
    /// Principals.
    pub parties: &'a Parties,
    /// Ways.
    pub ways: &'a Ways,
    /// Operations of the bundle that can be called.
    pub flows: Vec<Flow>,
    /// Operations that each way could be permitted by kernel and policies, whatever the labels, by position in `flows`.
    open: Vec<BTreeSet<usize>>,
    /// Labels of the session of each tree.
    sessions: Vec<Labels>,
    /// Labels that data in each way can have, once the fixpoint is reached; empty before.
    settled: Vec<Labels>,
    memories: BTreeMap<(usize, Option<usize>), Labels>,
    stores: BTreeMap<Store, Labels>,
    /// Systems at which break-glass can be in force.
    pub breakglass: &'a BTreeSet<String>,
    now: Time,
}

impl<'a> Taints<'a> {
    /// Computes the fixpoint.
    ///
    /// Args: `breakglass`: systems at which break-glass can be in force during some of the calls.
    #[must_use]
    pub fn new(
        plan: &'a Plan,
        conditions: &'a Conditions<'a>,
        (parties, ways): (&'a Parties, &'a Ways),
        breakglass: &'a BTreeSet<String>,
        now: Time,
    ) -> Self {
        let model = plan.model();
        // `mode` can let calls of other operations through.
        let observes = model.modes.any_observes(now);
        let callable = |operation: &&Operation| {
            (is_reviewed(operation) || observes) && operation.system != OWN_SYSTEM
        };
        let flows: Vec<Flow> = plan
            .operations()
            .iter()
            .enumerate()
            .filter(|(_, operation)| callable(operation))
            .map(|(at, operation)| flow(model, at, operation))
            .collect();
        let mut taints = Self {
            plan,
            conditions,
            parties,
            ways,
            flows,
            open: Vec::new(),
            sessions: vec![Labels::new(); ways.all.len()],
            settled: Vec::new(),
            memories: BTreeMap::new(),
            stores: BTreeMap::new(),
            breakglass,
            now,
        };
        let requests = in_force(breakglass, now);
        let permitted = taints.permitted();
        let open = ways.all.iter().map(|way| taints.prospects(way, &permitted, &requests));
        taints.open = open.collect();
        taints.run();
        taints.settled = ways.all.iter().map(|way| taints.gathered(way)).collect();
        taints
    }

    /// The operation of a flow.
    #[must_use]
    pub fn operation(&self, flow: &Flow) -> Option<&'a Operation> {
        self.plan.operations().get(flow.operation)
    }

    /// Operations that the policies could permit to each principal alone, whatever the other facts.
    ///
    /// Every principal of a chain needs a permit, and a forbid that fires for certain with fewer facts fires with more. So a
    /// chain with a principal that has no operation here has none in any way, and the kernel's outlook, which takes far longer,
    /// is asked about few of them.
    fn permitted(&self) -> BTreeMap<&'a PrincipalFacts, BTreeSet<usize>> {
        let parties = self.parties.agents.iter().chain(&self.parties.subjects);
        let of_party = |party: &'a Party| {
            let could = |flow: &Flow| {
                let Some(operation) = self.operation(flow) else { return false };
                let facts = CallFacts {
                    resource: resource(operation),
                    tiers: (0, 3),
                    has_destination: !flow.classes.is_empty(),
                    ..CallFacts::default()
                };
                let chain = std::slice::from_ref(&party.facts);
                self.conditions.could_permit(&operation.id, chain, &facts)
            };
            let at = self.flows.iter().enumerate();
            (&party.facts, at.filter(|(_, flow)| could(flow)).map(|(at, _)| at).collect())
        };
        parties.map(of_party).collect()
    }

    /// Operations that the kernel's outlook for the way does not exclude.
    ///
    /// Args:
    /// * `permitted`: result of [`Self::permitted`].
    /// * `requests`: break-glass in force.
    fn prospects(
        &self,
        way: &Way,
        permitted: &BTreeMap<&PrincipalFacts, BTreeSet<usize>>,
        requests: &Breakglasses,
    ) -> BTreeSet<usize> {
        let task = way.task.as_ref().map(|task| TaskView { task, ancestors: &way.ancestors });
        let proof = CallerProof {
            method: ProofMethod::JwtSvid,
            bound: true,
            age: Some(0),
            acr: "",
            satisfied: &[],
        };
        let facts = Facts {
            enforcer: "",
            chain: &way.principals,
            proof,
            confidence: 100,
            task,
            subject_proof: None,
            history: None,
            words: WordRecords::default(),
            literal_key: None,
            value_key: None,
            endorsed: &[],
            recipient_lists: None,
            granted: None,
            breakglass: Some(requests),
        };
        let prospects = Prospects::new(self.plan, &facts, self.now).with_any_proof();
        let model = self.plan.model();
        let observes = model.modes.any_observes(self.now);
        let of_chain = way.chain.iter().filter_map(|facts| permitted.get(facts));
        let of_chain: Vec<&BTreeSet<usize>> = of_chain.collect();
        let could = |at: usize, flow: &Flow| {
            let operation = self.operation(flow)?;
            // Where `mode` lets no call through, its reason does not matter, nor do the rules that make the outcome worse.
            if !observes && !model.splits.contains_key(&operation.id) {
                let is_permitted = of_chain.iter().all(|operations| operations.contains(&at));
                return Some(is_permitted && prospects.could(&operation.id));
            }
            let goal = Goal::default();
            if !is_reviewed(operation) {
                return Some(self.is_let_through(way, operation, &goal, UNREVIEWED));
            }
            let outlook = prospects.outlook(&operation.id)?;
            let is_denied = outlook.outcome == Outcome::Deny;
            Some(!is_denied || self.is_let_through(way, operation, &goal, outlook.reason))
        };
        let at = self.flows.iter().enumerate();
        at.filter(|(at, flow)| could(*at, flow) == Some(true)).map(|(at, _)| at).collect()
    }

    /// Labels that data in a way can have: those of its session, and those that its agents remember.
    #[must_use]
    pub fn carried(&self, way: &Way) -> Cow<'_, Labels> {
        match self.settled.get(way.position) {
            Some(labels) => Cow::Borrowed(labels),
            None => Cow::Owned(self.gathered(way)),
        }
    }

    fn gathered(&self, way: &Way) -> Labels {
        let mut labels = self.sessions.get(way.root).cloned().unwrap_or_default();
        for agent in &way.agents {
            let memory = self.memories.get(&way.recalled_key(self.parties, *agent));
            labels.extend(memory.into_iter().flatten().cloned());
        }
        self.derive(&mut labels);
        labels
    }

    /// Labels that follow from others.
    fn derive(&self, labels: &mut Labels) {
        for (name, rule) in &self.plan.model().derives {
            for mark in [Mark::Marked, Mark::Unmarked] {
                if labels.contains(&(rule.from.clone(), mark)) {
                    labels.insert((name.clone(), mark));
                }
            }
        }
    }

    /// Labels that a call reads from its store.
    #[must_use]
    pub fn stored(&self, flow: &Flow) -> Labels {
        let mut labels = Labels::new();
        if !flow.reads {
            return labels;
        }
        for (store, kept) in &self.stores {
            if !store.reaches(&flow.store) {
                continue;
            }
            let keeps = store.keeps(&flow.store, self.plan.model());
            labels.extend(kept.iter().map(|(label, mark)| {
                let mark = if keeps { *mark } else { Mark::Unmarked };
                (label.clone(), mark)
            }));
        }
        labels
    }

    /// Runs rounds until no set grows. Each round before the last one adds a label to a set, so their number is bounded by that
    /// of the sets and labels. An earlier end would leave calls out.
    fn run(&mut self) {
        while self.round() {}
    }

    /// One round. Returns whether a set grew.
    fn round(&mut self) -> bool {
        let mut has_grown = false;
        for (at, way) in self.ways.all.iter().enumerate() {
            let carried = self.gathered(way);
            let mut session: Labels = Labels::new();
            let mut written: Vec<Store> = Vec::new();
            for flow in self.open.get(at).into_iter().flatten() {
                let Some(flow) = self.flows.get(*flow) else { continue };
                let brings = self.brings(flow);
                let stores = flow.writes && !carried.is_empty();
                let is_new = brings.iter().any(|label| {
                    !self.sessions.get(way.root).is_some_and(|known| known.contains(label))
                });
                if !(stores || is_new) || !self.could(way, flow, &Goal::default()) {
                    continue;
                }
                session.extend(brings);
                if flow.writes {
                    written.push(flow.store.clone());
                }
            }
            let carried: Labels = carried.iter().chain(&session).cloned().collect();
            for store in written {
                let kept = self.stores.entry(store).or_default();
                let before = kept.len();
                kept.extend(carried.iter().cloned());
                has_grown |= kept.len() > before;
            }
            // A child shares the session of its tree, so each agent of the tree can tell the others.
            if let Some(known) = self.sessions.get_mut(way.root) {
                let before = known.len();
                known.extend(carried.iter().cloned());
                has_grown |= known.len() > before;
            }
            let all = self.sessions.get(way.root).cloned().unwrap_or_default();
            for agent in &way.agents {
                if let Some(key) = way.memory_key(self.parties, *agent) {
                    let memory = self.memories.entry(key).or_default();
                    let before = memory.len();
                    memory.extend(all.iter().cloned());
                    has_grown |= memory.len() > before;
                }
            }
        }
        has_grown
    }

    /// Labels of the data that a call brings.
    #[must_use]
    pub fn brings(&self, flow: &Flow) -> Labels {
        let own = flow.gives.iter().map(|label| (label.clone(), Mark::Marked));
        own.chain(self.stored(flow)).collect()
    }

    /// Positions of the operations that the kernel's outlook for a way does not exclude.
    pub fn open(&self, way: usize) -> impl Iterator<Item = &Flow> {
        self.open.get(way).into_iter().flatten().filter_map(|at| self.flows.get(*at))
    }

    /// Whether a call of a way could be permitted.
    #[must_use]
    pub fn could(&self, way: &Way, flow: &Flow, goal: &Goal) -> bool {
        let Some(operation) = self.operation(flow) else { return false };
        let facts = self.facts(way, flow, operation, goal);
        if goal.tier.is_some_and(|least| facts.tiers.1 < i64::from(least as u8)) {
            return false;
        }
        if !is_reviewed(operation) {
            return self.is_let_through(way, operation, goal, UNREVIEWED);
        }
        let is_open = self.meets_tier(operation, goal)
            && self.conditions.could_permit(&operation.id, &way.chain, &facts);
        is_open || self.is_let_through(way, operation, goal, ReasonCode::NotPermitted)
    }

    /// Labels without which no policy permits a call of a way. The session, the agent's memory or the resource can have them.
    #[must_use]
    pub fn needed(&self, way: &Way, flow: &Flow, class: Option<&str>) -> BTreeSet<String> {
        let Some(operation) = self.operation(flow) else { return BTreeSet::new() };
        let goal = Goal { class: class.map(str::to_owned), ..Goal::default() };
        let facts = self.facts(way, flow, operation, &goal);
        let could =
            |facts: &CallFacts| self.conditions.could_permit(&operation.id, &way.chain, facts);
        let is_needed = |label: &&String| {
            let mut without = facts.clone();
            for set in [&mut without.carried, &mut without.uncleared, &mut without.remembered] {
                set.lacks.insert((*label).clone());
            }
            !could(&without)
        };
        if !could(&facts) {
            return BTreeSet::new();
        }
        self.plan.model().labels.keys().filter(is_needed).cloned().collect()
    }

    /// Whether `mode` lets a refused call of a way through, in some tier that the call can have.
    #[must_use]
    pub fn is_let_through(
        &self,
        way: &Way,
        operation: &Operation,
        goal: &Goal,
        reason: ReasonCode,
    ) -> bool {
        let least = goal.tier.map_or(operation.tier, |least| least.max(operation.tier));
        let highest = self.highest(operation);
        let mut tiers = Tier::ALL.into_iter().filter(|tier| (least..=highest).contains(tier));
        tiers.any(|tier| {
            let refused = RefusedCall {
                chain: &way.principals,
                has_task: way.task.is_some(),
                place: CallPlace::Judged { system: &operation.system, tier },
                reason,
                understood: true,
            };
            self.plan.softens(&refused, self.now)
        })
    }

    /// Facts of a call that reaches a goal.
    #[must_use]
    pub fn facts(&self, way: &Way, flow: &Flow, operation: &Operation, goal: &Goal) -> CallFacts {
        let model = self.plan.model();
        let carried = self.carried(way);
        let mut own: Labels =
            flow.gives.iter().map(|label| (label.clone(), Mark::Marked)).collect();
        self.derive(&mut own);
        let possible: BTreeSet<&str> =
            carried.iter().chain(&own).map(|(label, _)| label.as_str()).collect();
        let absent: BTreeSet<String> = model
            .labels
            .keys()
            .filter(|label| !possible.contains(label.as_str()))
            .cloned()
            .collect();
        let mut carries = PartialSet { lacks: absent.clone(), ..PartialSet::default() };
        let mut uncleared = PartialSet { lacks: absent, ..PartialSet::default() };
        uncleared.lacks.retain(|label| !flow.resource_labels.contains(label));
        let clearance = goal.class.as_ref().and_then(|class| model.destinations.get(class));
        if let Some(class) = clearance {
            uncleared.lacks.extend(class.clearance.iter().cloned());
        }
        let is_confidential = |label: &str| {
            model.labels.get(label).is_some_and(|one| one.value == LabelKind::Confidentiality)
        };
        uncleared
            .lacks
            .extend(model.labels.keys().filter(|label| !is_confidential(label)).cloned());
        // Labels that enforcers report can be any: only those that the path needs are known.
        for label in &goal.marked {
            carries.lacks.remove(label);
            carries.has.insert(label.clone());
            let is_cleared = clearance.is_some_and(|class| class.clearance.contains(label));
            if is_confidential(label) && goal.class.is_some() && !is_cleared {
                uncleared.lacks.remove(label);
                uncleared.has.insert(label.clone());
            }
        }
        for label in &goal.of_resource {
            let is_cleared = clearance.is_some_and(|class| class.clearance.contains(label));
            if is_confidential(label) && goal.class.is_some() && !is_cleared {
                uncleared.lacks.remove(label);
                uncleared.has.insert(label.clone());
            }
        }
        if flow.classes.is_empty() {
            uncleared = PartialSet::empty();
        }
        let tier = i64::from(operation.tier as u8);
        let highest = i64::from(self.highest(operation) as u8);
        let least = goal.tier.map_or(tier, |least| tier.max(i64::from(least as u8)));
        CallFacts {
            resource: resource(operation),
            tiers: (least.min(highest), highest),
            has_destination: !flow.classes.is_empty(),
            class: goal.class.clone(),
            carried: carries,
            uncleared,
            satisfied: PartialSet { lacks: goal.unmet.clone(), ..PartialSet::default() },
            sequences: self.sequences(operation, goal),
            exceptions: self.exceptions(way, operation, goal),
            ..way.facts()
        }
    }

    fn sequences(&self, operation: &Operation, goal: &Goal) -> PartialSet {
        let model = self.plan.model();
        let is_built_in = model.is_built_in(operation);
        let ends = |last: &[authz_kernel::model::EventPattern]| {
            last.iter().any(|event| event.matches(operation, is_built_in))
        };
        let can_end = model.sequences.iter().filter(|(_, rule)| ends(&rule.last));
        let can_end: BTreeSet<&str> = can_end.map(|(name, _)| name.as_str()).collect();
        let others = model.sequences.keys().filter(|name| !can_end.contains(name.as_str()));
        PartialSet {
            has: goal.sequences.clone(),
            lacks: others.cloned().collect(),
            is_closed: false,
        }
    }

    /// Exceptions that can cover calls of a way that reach a goal.
    fn exceptions(&self, way: &Way, operation: &Operation, goal: &Goal) -> PartialSet {
        let model = self.plan.model();
        let caller = way.principals.last();
        let roles = way.chain.last().map(|facts| &facts.roles);
        let covers = |exception: &authz_kernel::model::StandingException| {
            let is_held = caller.zip(roles).is_some_and(|(caller, roles)| {
                exception.holder.is_held_by(caller, roles.iter().map(String::as_str))
            });
            is_held
                && exception.expires > self.now
                && exception.operations.iter().any(|glob| glob.0.matches(&operation.id))
        };
        let absent = model.exceptions.iter().filter(|(_, one)| !covers(one));
        let mut lacks: BTreeSet<String> = absent.map(|(name, _)| name.clone()).collect();
        let least = goal.tier.map_or(operation.tier, |least| least.max(operation.tier));
        if !self.breakglass.contains(&operation.system) || least > BREAKGLASS_TIER {
            lacks.insert(BREAKGLASS.to_owned());
        }
        PartialSet { lacks, ..PartialSet::default() }
    }

    /// Whether a step-up could hold a call of a way in a session that carries these labels and no others, whatever its arguments.
    ///
    /// Step-ups come from policies, from the tier of a call, and from a task that holds calls beyond its scope.
    #[must_use]
    pub fn could_hold(
        &self,
        conditions: &Conditions<'_>,
        way: &Way,
        flow: &Flow,
        labels: &[String],
    ) -> bool {
        let Some(operation) = self.operation(flow) else { return true };
        let rules = &self.plan.model().tiers;
        let needs_approval = |tier: Tier| {
            rules.get(tier as usize).is_some_and(|rule| rule.approval != TierApproval::None)
        };
        if self.tiers(operation).any(needs_approval)
            || way.task.as_ref().is_some_and(|task| task.beyond.is_some())
        {
            return true;
        }
        let carried = PartialSet { has: labels.iter().cloned().collect(), ..PartialSet::empty() };
        let facts = self.facts(way, flow, operation, &Goal::default());
        // A label that comes with the call itself is known to no session, but perhaps to the destination.
        let facts = CallFacts { carried, uncleared: PartialSet::default(), ..facts };
        conditions.slice(&operation.id).iter().any(|at| {
            let is_stepup = conditions.policies().get(*at).is_none_or(|one| one.stepup.is_some());
            let fires = |one| conditions.fires(*at, &operation.id, one, &facts) != Fires::Never;
            is_stepup && way.chain.iter().any(fires)
        })
    }

    /// Tiers that a call of an operation can have.
    pub fn tiers(&self, operation: &Operation) -> impl Iterator<Item = Tier> + use<> {
        let bounds = operation.tier..=self.highest(operation);
        Tier::ALL.into_iter().filter(move |tier| bounds.contains(tier))
    }

    /// Highest tier that a call of an operation can have: labels, destinations and denials raise it.
    fn highest(&self, operation: &Operation) -> Tier {
        let model = self.plan.model();
        let classes = model.raises.classes.values().filter(|_| operation.destination.is_some());
        let raised = classes.chain(model.raises.labels.values()).copied();
        let highest = raised.fold(operation.tier, Tier::max);
        match (model.denials, highest) {
            (None, _) => highest,
            (Some(_), Tier::Low) => Tier::Standard,
            (Some(_), Tier::Standard) => Tier::High,
            (Some(_), Tier::High | Tier::Critical) => Tier::Critical,
        }
    }

    /// Whether the requirements of some tier that the call can have, and that reaches the goal, leave a way without the unmet
    /// kinds.
    fn meets_tier(&self, operation: &Operation, goal: &Goal) -> bool {
        let least = goal.tier.map_or(operation.tier, |least| least.max(operation.tier));
        let highest = self.highest(operation);
        let model = self.plan.model();
        Tier::ALL.into_iter().filter(|tier| (least..=highest).contains(tier)).any(|tier| {
            let rule = model.tiers.get(tier as usize);
            let kind = match rule.map(|rule| rule.approval) {
                Some(TierApproval::Confirm) => "confirm",
                Some(TierApproval::Approve) => "approve",
                Some(TierApproval::TwoPerson) => "two_person",
                Some(TierApproval::None) | None => return true,
            };
            !goal.unmet.contains(kind)
        })
    }
}

/// Requests by which break-glass is in force at systems for all callers. The people who opened them are the subject of no call.
fn in_force(systems: &BTreeSet<String>, now: Time) -> Breakglasses {
    let person = |name: &str| BreakglassPerson {
        issuer: String::new(),
        sub: name.to_owned(),
        name: name.to_owned(),
    };
    let mut all = Breakglasses::default();
    for system in systems {
        let ends_at = Time(i64::MAX);
        all.insert(Arc::new(Breakglass {
            id: system.clone(),
            system: system.clone(),
            agent: None,
            duration_ms: i64::MAX,
            reason: String::new(),
            ticket: String::new(),
            opened_by: person("opener"),
            opened_at: now,
            confirm_before: ends_at,
            confirmed: Some(BreakglassConfirmation { by: person("confirmer"), at: now, ends_at }),
            ended: None,
            rest: BTreeMap::new(),
        }));
    }
    all
}

/// Facts that a call must have to reach a goal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Goal {
    /// Class of a destination.
    pub class: Option<String>,
    /// Labels that Authz has for the data of the session.
    pub marked: BTreeSet<String>,
    /// Labels that Authz has for the resource of the call.
    pub of_resource: BTreeSet<String>,
    /// Step-up kinds that are not met.
    pub unmet: BTreeSet<String>,
    /// Least effective tier.
    pub tier: Option<Tier>,
    /// Sequences that the call completes.
    pub sequences: BTreeSet<String>,
}

/// Reason of calls of operations that nobody reviewed.
const UNREVIEWED: ReasonCode = ReasonCode::UnreviewedOperation;

fn resource(operation: &Operation) -> ResourceFacts {
    match &operation.resource {
        Some(rule) => ResourceFacts::Collection(rule.collection.clone()),
        None => ResourceFacts::System,
    }
}

fn is_reviewed(operation: &Operation) -> bool {
    operation.reviewed && !operation.drifted
}

fn flow(model: &Model, at: usize, operation: &Operation) -> Flow {
    let of_resource = operation.resource.as_ref().map(|rule| {
        let collection = model.collections.get(&rule.collection);
        let patterns = model.resource_patterns.iter();
        let patterns = patterns.filter(|pattern| pattern.collection == rule.collection);
        let own = collection.into_iter().flat_map(|one| &one.labels);
        own.chain(patterns.flat_map(|pattern| &pattern.labels)).cloned().collect::<BTreeSet<_>>()
    });
    let of_resource = of_resource.unwrap_or_default();
    let reads =
        operation.effects.contains(&Effect::Read) || operation.effects.contains(&Effect::Execute);
    let mut gives = operation.yields.1.clone();
    gives.extend(operation.yields.0.iter().cloned());
    let yields_sent = match operation.effects.contains(&Effect::Export) {
        true => gives.clone(),
        false => BTreeSet::new(),
    };
    if reads {
        gives.extend(of_resource.iter().cloned());
    }
    let classes = match operation.destination {
        Some(_) => model.destinations.keys().cloned().collect(),
        None => Vec::new(),
    };
    let resource_labels = match classes.is_empty() {
        true => BTreeSet::new(),
        false => of_resource,
    };
    Flow {
        operation: at,
        resource_labels,
        yields_sent,
        reads: reads || !gives.is_empty(),
        gives,
        writes: operation.effects.contains(&Effect::Write),
        store: Store::of(operation),
        classes,
    }
}
