//! What all decisions share until it is swapped: plan, trust, listeners.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use authz_kernel::plan::Plan;
use authz_token::TrustStore;
use serde_json::Value;

use crate::judgement::hex;
use crate::metrics::{Metrics, SystemId};
use crate::settings::{EngineError, INSECURE_DEV, Listener, Surface};

/// Everything that a decision reads besides its request. Swapped whole.
#[derive(Debug)]
pub struct World {
    /// The bundle.
    pub plan: Arc<Plan>,
    /// Whose credentials are believed.
    pub trust: Arc<TrustStore>,
    /// The ways in.
    pub listeners: Vec<Listener>,
}

/// A world, checked and indexed.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) plan: Arc<Plan>,
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) read_headers: ReadHeaders,
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) digest: String,
    ways: BTreeMap<String, Way>,
    systems: BTreeMap<String, SystemId>,
    /// Systems that an enforcer asks about and the bundle does not have.
    pub(crate) unknown_systems: Vec<String>,
}

/// A way in.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) enforcer: Enforcer,
    pub(crate) admin: bool,
    surfaces: Option<BTreeSet<Surface>>,
}

impl Way {
    /// Whether a surface is answered here at all.
    pub(crate) fn answers(&self, surface: Surface) -> bool {
        self.surfaces.as_ref().is_none_or(|surfaces| surfaces.contains(&surface))
    }
}

/// Who asks, by the listener that the call came by.
#[derive(Debug)]
pub(crate) enum Enforcer {
    /// Nobody: the caller asks about itself.
    None,
    /// A configured one.
    Named { name: String, asks: Asks },
    /// Anybody, for development.
    InsecureDev,
}

/// Systems that an enforcer asks about.
#[derive(Debug)]
pub(crate) enum Asks {
    All,
    These(BTreeSet<String>),
}

impl Enforcer {
    /// Its name in policies and records; empty where there is none.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::None => "",
            Self::Named { name, .. } => name,
            Self::InsecureDev => INSECURE_DEV,
        }
    }

    /// Whether it may ask about the operation. Whoever asks about itself may ask about every system.
    pub(crate) fn may_ask(&self, operation: &str) -> bool {
        match self {
            Self::None | Self::InsecureDev | Self::Named { asks: Asks::All, .. } => true,
            Self::Named { asks: Asks::These(systems), .. } => {
                operation.split_once('.').is_some_and(|(system, _)| systems.contains(system))
            }
        }
    }
}

/// Headers that decide what a request is, and how others are spelled that CGI and WSGI servers take for them: `_` and `-`
/// give the same variable there.
#[derive(Debug, Default)]
pub(crate) struct ReadHeaders {
    /// By the name with `-` throughout: the one spelling that is read, or none where two are.
    spelling: HashMap<String, Option<String>>,
    /// Whether a name with `_` is read, so that one without could be its twin.
    any_underscore: bool,
}

impl ReadHeaders {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut read = Self::default();
        for name in names {
            read.any_underscore |= name.contains('_');
            read.spelling
                .entry(name.replace('_', "-"))
                .and_modify(|known| {
                    if known.as_deref() != Some(name) {
                        *known = None;
                    }
                })
                .or_insert_with(|| Some(name.to_owned()));
        }
        read
    }

    /// A header that is read, where one of `names` is another spelling of it. Gives its name with `-` throughout.
    pub(crate) fn twin<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<&str> {
        names.find_map(|name| {
            if !name.contains('_') && !self.any_underscore {
                return None;
            }
            let (dashed, spelling) = self.spelling.get_key_value(&name.replace('_', "-"))?;
            (spelling.as_deref() != Some(name)).then_some(dashed.as_str())
        })
    }
}

impl Loaded {
    pub(crate) fn new(world: World, metrics: &Metrics) -> Result<Self, EngineError> {
        let World { plan, trust, listeners } = world;
        let systems: BTreeMap<String, SystemId> =
            plan.systems().keys().map(|system| (system.clone(), metrics.system(system))).collect();
        let mut ways = BTreeMap::new();
        let mut unknown_systems = BTreeSet::new();
        for listener in listeners {
            let name = listener.name.clone();
            let way = way(listener)?;
            if let Enforcer::Named { asks: Asks::These(asked), .. } = &way.enforcer {
                unknown_systems
                    .extend(asked.iter().filter(|system| !systems.contains_key(*system)).cloned());
            }
            if ways.insert(name.clone(), way).is_some() {
                return Err(EngineError(format!(
                    "two listeners have the name `{name}`; rename one"
                )));
            }
        }
        Ok(Self {
            name: plan.name().to_owned(),
            revision: plan.revision().to_owned(),
            digest: hex(&plan.digest()),
            read_headers: ReadHeaders::of(plan.routes().read_headers()),
            plan,
            trust,
            ways,
            systems,
            unknown_systems: unknown_systems.into_iter().collect(),
        })
    }

    pub(crate) fn way(&self, listener: &str) -> Option<&Way> {
        self.ways.get(listener)
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = (&str, &Way)> {
        self.ways.iter().map(|(name, way)| (name.as_str(), way))
    }

    /// The system of a resolved operation.
    pub(crate) fn system(&self, operation: &str) -> SystemId {
        operation
            .split_once('.')
            .and_then(|(system, _)| self.systems.get(system))
            .copied()
            .unwrap_or_default()
    }

    /// The schema of an operation's arguments.
    pub(crate) fn schema(&self, operation: &str) -> Option<&Value> {
        self.plan.operation(operation).map(|operation| &operation.input)
    }
}

fn way(listener: Listener) -> Result<Way, EngineError> {
    let name = &listener.name;
    let refused = |what: &str| EngineError(format!("listener `{name}`: {what}"));
    let enforcer = match (listener.enforcer, listener.insecure_dev) {
        (Some(_), true) => {
            return Err(refused("has both `enforcer` and `insecure_dev`; give one"));
        }
        (None, true) => Enforcer::InsecureDev,
        (None, false) => Enforcer::None,
        (Some(spec), false) => {
            if spec.name.is_empty() || spec.name == INSECURE_DEV {
                return Err(refused("`enforcer.name` is empty or reserved; give another"));
            }
            Enforcer::Named {
                asks: asks(&spec.asks).map_err(|what| refused(&what))?,
                name: spec.name,
            }
        }
    };
    let surfaces = listener.surfaces.map(|list| list.into_iter().collect());
    Ok(Way { enforcer, admin: listener.admin, surfaces })
}

fn asks(list: &[String]) -> Result<Asks, String> {
    let mut systems = BTreeSet::new();
    let mut all = false;
    for item in list {
        match item.strip_prefix("system:") {
            Some("*") => all = true,
            Some(system) if !system.is_empty() && !system.contains(['*', '.']) => {
                systems.insert(system.to_owned());
            }
            _ => return Err(format!("`asks: {item}` is no `system:<id>` and not `system:*`")),
        }
    }
    if all {
        return Ok(Asks::All);
    }
    if systems.is_empty() {
        return Err("`asks` is empty, so every question would be refused; list systems".to_owned());
    }
    Ok(Asks::These(systems))
}
