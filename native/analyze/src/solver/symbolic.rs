//! Cedar's symbolic compiler, with solver processes that speak SMT-LIB.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cedar_policy::{
    EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, RequestEnv, Schema,
};
use cedar_policy_symcc::err::Error as SymbolicError;
use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{
    CedarSymCompiler, CompiledPolicySet, CompiledSchema, Env, disjoint_asserts, implies_asserts,
};
use serde_json::Value;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Answer, Model, Question, Relation, Solver};

/// Stack of a thread that asks. Parser and compiler recurse as deep as an expression nests.
const STACK_BYTES: usize = 512 * 1024 * 1024;
/// Most compiled schemas that are kept.
const MAX_SCHEMAS: usize = 256;
/// Time that a solver process has beyond its own limit, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Program of a solver.
#[derive(Clone, Debug)]
pub struct SolverProgram {
    /// Path of the program and its arguments.
    pub command: Vec<String>,
    /// Time limit of a question.
    pub limit: Duration,
    /// Processes that run at once.
    pub jobs: usize,
}

/// A solver that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command is empty.
    #[error("no solver is configured")]
    Missing,
    /// The program cannot be run.
    #[error("the solver `{0}` does not start: {1}")]
    Run(String, std::io::Error),
    /// The program does not tell its name.
    #[error("the solver does not start: {0}")]
    Refused(String),
}

/// Asks a solver process. A process that fails or exceeds its time is killed, and the next question has a new one.
#[derive(Debug)]
pub struct SymbolicSolver {
    program: SolverProgram,
    name: (String, String),
    idle: Mutex<Vec<Session>>,
    schemas: Mutex<HashMap<String, Arc<CompiledSchema>>>,
}

/// One solver process, with the runtime that waits for it.
#[derive(Debug)]
struct Session {
    compiler: CedarSymCompiler<LocalSolver>,
    // Dropped after the process that it waits for.
    runtime: Runtime,
}

impl SymbolicSolver {
    /// Asks the program for its name: `PROGRAM --version` prints name and version.
    ///
    /// # Errors
    /// The program does not run, or prints no name.
    pub fn start(program: SolverProgram) -> Result<Self, StartError> {
        let (first, arguments) = program.command.split_first().ok_or(StartError::Missing)?;
        let output = std::process::Command::new(first)
            .args(arguments)
            .arg("--version")
            .output()
            .map_err(|error| StartError::Run(first.clone(), error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            return Err(StartError::Refused(text(&output.stderr)));
        }
        let printed = text(&output.stdout);
        let name = printed.split_once(' ').ok_or(StartError::Refused(printed.clone()))?;
        let name = (name.0.to_owned(), name.1.to_owned());
        Ok(Self { program, name, idle: Mutex::default(), schemas: Mutex::default() })
    }

    fn session(&self) -> Result<Session, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(session) => Ok(session),
            None => self.open(),
        }
    }

    fn open(&self) -> Result<Session, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let mut command = match self.program.command.split_first() {
            Some((first, arguments)) => {
                let mut command = Command::new(first);
                command.args(arguments);
                command
            }
            None => return Err("no solver is configured".to_owned()),
        };
        command.arg("--limit-ms").arg(self.program.limit.as_millis().to_string());
        command.kill_on_drop(true);
        let solver = {
            let _guard = runtime.enter();
            LocalSolver::from_command(&mut command).map_err(|error| error.to_string())?
        };
        let compiler = CedarSymCompiler::new(solver).map_err(|error| error.to_string())?;
        Ok(Session { compiler, runtime })
    }

    /// Answers on a thread with enough stack.
    fn answer(&self, question: &Question) -> Answer {
        let compiled = self.schema(question).and_then(|schema| Compiled::of(question, &schema));
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(text) => return Answer::Unknown(text),
        };
        let mut session = match self.session() {
            Ok(session) => session,
            Err(text) => return Answer::Unknown(format!("the solver does not start: {text}")),
        };
        let asserts = match question.relation {
            Relation::Both => disjoint_asserts(&compiled.first, &compiled.second),
            Relation::OnlyFirst => implies_asserts(&compiled.first, &compiled.second),
        };
        let Session { compiler, runtime } = &mut session;
        let limit = self.program.limit.saturating_add(GRACE);
        let result = runtime.block_on(async { timeout(limit, compiler.check_sat(&asserts)).await });
        // INVARIANT (answers stay with their questions): a process that failed, or still works on a question, is dropped, which
        // kills it. Its output would be read as the answer to the next question.
        match result {
            Err(_) => self.too_late(),
            Ok(Err(SymbolicError::SolverUnknown)) => self.too_late(),
            Ok(Err(error)) => Answer::Unknown(format!("the solver failed: {}", one_line(&error))),
            Ok(Ok(None)) => {
                self.put_back(session);
                Answer::Unsatisfiable
            }
            Ok(Ok(Some(env))) => {
                self.put_back(session);
                match model(&env) {
                    Ok(model) => Answer::Satisfiable(Box::new(model)),
                    Err(text) => Answer::Unknown(text),
                }
            }
        }
    }

    /// The compiled schema of a question. Questions about operations with equal arguments share it.
    fn schema(&self, question: &Question) -> Result<Arc<CompiledSchema>, String> {
        let key = format!("{}\n{}", question.prelude.digest(), question.declaration);
        let kept = self.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(schema) = kept {
            return Ok(schema);
        }
        let text = format!("{}{}", question.prelude.text(), question.declaration);
        let (schema, _) = Schema::from_cedarschema_str(&text)
            .map_err(|error| format!("the schema cannot be read: {}", one_line(&error)))?;
        let compiled = CompiledSchema::new(&schema).map_err(|error| one_line(&error))?;
        let compiled = Arc::new(compiled);
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if schemas.len() >= MAX_SCHEMAS {
            schemas.clear();
        }
        schemas.insert(key, Arc::clone(&compiled));
        Ok(compiled)
    }

    fn too_late(&self) -> Answer {
        let limit = self.program.limit.as_millis();
        Answer::Unknown(format!("the solver did not decide it within {limit} ms"))
    }

    fn put_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

impl Solver for SymbolicSolver {
    fn name(&self) -> Option<(String, String)> {
        Some(self.name.clone())
    }

    fn ask(&self, question: &Question) -> Answer {
        let answer = self.ask_all(std::slice::from_ref(question)).pop();
        answer.unwrap_or_else(|| Answer::Unknown("the question was lost".to_owned()))
    }

    fn ask_all(&self, questions: &[Question]) -> Vec<Answer> {
        let next = AtomicUsize::new(0);
        let answers: Mutex<Vec<(usize, Answer)>> = Mutex::default();
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(question) = questions.get(index) else { return };
                // A panic of the symbolic compiler costs one answer, not the report.
                let answer = catch_unwind(AssertUnwindSafe(|| self.answer(question)));
                let answer = answer.unwrap_or_else(|_| {
                    Answer::Unknown("the symbolic compiler failed on the question".to_owned())
                });
                answers.lock().unwrap_or_else(PoisonError::into_inner).push((index, answer));
            }
        };
        std::thread::scope(|scope| {
            let jobs = self.program.jobs.clamp(1, questions.len().max(1));
            for _ in 0..jobs {
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                // A thread that does not start leaves its questions to the others.
                drop(thread.spawn_scoped(scope, work));
            }
        });
        let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.sort_by_key(|(index, _)| *index);
        let mut answers = answers.into_iter().peekable();
        let of = |index| match answers.next_if(|(at, _)| *at == index) {
            Some((_, answer)) => answer,
            None => Answer::Unknown("the question was lost".to_owned()),
        };
        (0..questions.len()).map(of).collect()
    }
}

/// Both lists of a question, compiled for one environment.
struct Compiled {
    first: CompiledPolicySet,
    second: CompiledPolicySet,
}

impl Compiled {
    fn of(question: &Question, schema: &CompiledSchema) -> Result<Self, String> {
        let named = |name: &str| {
            EntityTypeName::from_str(name).map_err(|error| format!("`{name}`: {error}"))
        };
        let action =
            EntityUid::from_type_name_and_id(named("Action")?, EntityId::new(&question.action));
        let env = RequestEnv::new(
            named(&question.principal_type)?,
            action,
            named(&question.resource_type)?,
        );
        let symbolic = schema.sym_env(&env).map_err(|error| one_line(&error))?;
        let compile = |conditions: &[String]| {
            let set = permits(conditions)?;
            let schema = schema.schema();
            CompiledPolicySet::compile_with_custom_symenv(&set, &env, schema, symbolic.clone())
                .map_err(|error| format!("the question cannot be compiled: {}", one_line(&error)))
        };
        Ok(Self { first: compile(&question.first)?, second: compile(&question.second)? })
    }
}

/// One permit for each condition.
fn permits(conditions: &[String]) -> Result<PolicySet, String> {
    let mut set = PolicySet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let policy = Policy::parse(Some(PolicyId::new(index.to_string())), text)
            .map_err(|error| format!("a condition cannot be read: {}", one_line(&error)))?;
        set.add(policy).map_err(|error| error.to_string())?;
    }
    Ok(set)
}

/// The request of a counterexample.
fn model(env: &Env) -> Result<Model, String> {
    let id = |uid: Option<&EntityUid>| {
        uid.map(|uid| uid.id().unescaped().to_owned())
            .ok_or_else(|| "the solver's request leaves a part open".to_owned())
    };
    let context = env.request.context().ok_or("the solver's request has no context")?;
    let mut entities = env.entities.to_json_value().map_err(|error| one_line(&error))?;
    if let Some(list) = entities.as_array_mut() {
        // An entity without attributes and parents is judged like one that is missing, and a request can name hundreds.
        list.retain(|entity| {
            let has = |name| entity.get(name).is_some_and(|value| !is_empty(value));
            let is_action = entity.pointer("/uid/type").is_some_and(|kind| kind == "Action");
            !is_action && (has("attrs") || has("parents") || has("tags"))
        });
    }
    Ok(Model {
        principal: id(env.request.principal())?,
        resource: id(env.request.resource())?,
        context: context.to_json_value().map_err(|error| one_line(&error))?,
        entities,
    })
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// An error as one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
