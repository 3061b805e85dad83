//! Solvers that are missing, fail, lie or take too long; kept answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use authz_analyze::guards::{GuardAnswer, Guards};
use authz_analyze::proofs::{self, REDUNDANT};
use authz_analyze::report::Finality;
use authz_analyze::solver::{
    Answer, KeptAnswers, Model, NoSolver, OnceSolver, Question, Solver, SymbolicSolver,
};
use serde_json::json;

use crate::bundles::{SOLVER, plan, program};

const POLICIES: &str = r#"
@id("small") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount < 100 };
@id("large") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 50 };
"#;

fn answer(solver: &dyn Solver) -> GuardAnswer {
    let plan = plan(POLICIES);
    Guards::new(&plan, solver).can_be_permitted("billing.pay", "Agent", "")
}

fn reason(answer: GuardAnswer) -> String {
    match answer {
        GuardAnswer::Unknown(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// A program that prints a name, and then runs a shell command in place of a solver.
fn shell(script: &str, limit: Duration) -> SymbolicSolver {
    let script = format!("[ \"$1\" = --version ] && echo shell 1 && exit; {script}");
    let command = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    SymbolicSolver::start(program(command, limit)).unwrap()
}

#[test]
fn without_a_solver_nothing_is_proved() {
    let solver = NoSolver::new("no solver is used");
    let plan = plan(POLICIES);
    let once = OnceSolver::new(&solver, None);
    let report = proofs::analyze(&plan, &once);
    assert_eq!(None, report.solver);
    // No other policy has the effect of either, so that nothing needs to be asked.
    let rules: Vec<&str> = report.proved.iter().map(|one| one.rule.as_str()).collect();
    assert_eq!(vec![REDUNDANT, REDUNDANT], rules, "{:?}", report.proved);
    assert!(!report.findings.is_empty());
    for finding in &report.findings {
        let is_open =
            finding.verdict == Finality::NotDecided && finding.reason == "no solver is used";
        // An operation that no permit covers needs no solver.
        let has_no_permit = finding.message.ends_with("no permit covers it");
        assert!(is_open || has_no_permit, "{finding:?}");
    }
}

#[test]
fn a_program_that_is_not_there_is_no_solver() {
    let missing = program(vec!["/nonexistent/solver".to_owned()], Duration::from_secs(1));
    assert!(SymbolicSolver::start(missing).is_err());
    assert!(SymbolicSolver::start(program(Vec::new(), Duration::from_secs(1))).is_err());
}

#[test]
fn a_solver_that_ends_is_not_decided() {
    let reason = reason(answer(&shell("exit 1", Duration::from_secs(5))));
    assert!(reason.starts_with("the solver failed"), "{reason}");
}

#[test]
fn a_solver_that_never_answers_is_not_decided() {
    let reason = reason(answer(&shell("exec sleep 600", Duration::from_millis(10))));
    assert_eq!("the solver did not decide it within 10 ms", reason);
}

#[test]
fn a_solver_that_answers_nonsense_is_not_decided() {
    let reason =
        reason(answer(&shell("while read line; do echo tomato; done", Duration::from_secs(5))));
    assert!(reason.starts_with("the solver failed"), "{reason}");
}

/// Answers with a fixed request.
#[derive(Debug)]
struct Fixed(Model, AtomicUsize);

impl Solver for Fixed {
    fn name(&self) -> Option<(String, String)> {
        Some(("fixed".to_owned(), "1".to_owned()))
    }

    fn ask(&self, _question: &Question) -> Answer {
        self.1.fetch_add(1, Ordering::Relaxed);
        Answer::Satisfiable(Box::new(self.0.clone()))
    }
}

fn fixed(amount: i64) -> Fixed {
    let context = json!({"input": {"amount": amount}});
    let model = Model {
        principal: "spiffe://a.example/bot/a".to_owned(),
        resource: "billing".to_owned(),
        context,
        entities: json!([]),
    };
    Fixed(model, AtomicUsize::new(0))
}

#[test]
fn the_kernel_judges_each_request_again() {
    assert!(matches!(answer(&fixed(10)), GuardAnswer::Satisfiable(_)));
    let reason = reason(answer(&fixed(70)));
    assert!(reason.starts_with("the kernel does not confirm the solver's request"), "{reason}");
}

#[test]
fn equal_questions_are_asked_once() {
    let solver = fixed(10);
    let once = OnceSolver::new(&solver, None);
    let plan = plan(POLICIES);
    let guards = Guards::new(&plan, &once);
    for _ in 0..3 {
        assert!(matches!(
            guards.can_be_permitted("billing.pay", "Agent", ""),
            GuardAnswer::Satisfiable(_)
        ));
    }
    assert_eq!(1, solver.1.load(Ordering::Relaxed));
    assert_eq!(1, once.counts().asked);
}

/// Operations whose conditions read the same parts of a request have the same questions.
#[test]
fn equal_questions_of_two_operations_are_one() {
    let policies = r#"
@id("any") permit(principal in Role::"bots", action, resource) when { context.confidence > 50 };
"#;
    let plan = plan(policies);
    let once = OnceSolver::new(&*SOLVER, None);
    let guards = Guards::new(&plan, &once);
    for operation in ["billing.pay", "mail.send"] {
        assert!(matches!(
            guards.can_be_permitted(operation, "Agent", ""),
            GuardAnswer::Satisfiable(_)
        ));
    }
    assert_eq!(1, once.counts().asked);
}

#[test]
fn definite_answers_are_kept_for_the_next_run() {
    let folder = std::env::temp_dir().join(format!("authz-analyze-{}", std::process::id()));
    let plan = plan(POLICIES);
    let run = |solver: &dyn Solver| {
        let once = OnceSolver::new(solver, Some(KeptAnswers::new(folder.clone())));
        let answer = Guards::new(&plan, &once).can_be_permitted("billing.pay", "Agent", "");
        (answer, once.counts())
    };
    let solver = fixed(10);
    assert_eq!(0, run(&solver).1.kept);
    let (answer, counts) = run(&solver);
    assert!(matches!(answer, GuardAnswer::Satisfiable(_)));
    assert_eq!((1, 1), (counts.asked, counts.kept));
    assert_eq!(1, solver.1.load(Ordering::Relaxed));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A kept answer is judged again, too, and a damaged one is asked for again.
#[test]
fn a_damaged_answer_is_not_read() {
    let folder = std::env::temp_dir().join(format!("authz-analyze-damaged-{}", std::process::id()));
    let kept = KeptAnswers::new(folder.clone());
    kept.write("s 1", "q", &Answer::Unsatisfiable);
    assert_eq!(Some(Answer::Unsatisfiable), kept.read("s 1", "q"));
    assert_eq!(None, kept.read("s 2", "q"));
    kept.write("s 1", "open", &Answer::Unknown("time".to_owned()));
    assert_eq!(None, kept.read("s 1", "open"));
    for entry in std::fs::read_dir(&folder).unwrap() {
        for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
            std::fs::write(file.unwrap().path(), "{\"answer\": \"unsat").unwrap();
        }
    }
    assert_eq!(None, kept.read("s 1", "q"));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The folder keeps its size, and loses the answers that were not used for the longest time.
#[test]
fn the_oldest_answers_are_deleted() {
    let folder = std::env::temp_dir().join(format!("authz-analyze-trim-{}", std::process::id()));
    let kept = KeptAnswers::new(folder.clone()).with_max_bytes(2 * 4_096);
    let questions = ["first", "second", "third", "fourth"];
    for (question, day) in questions.into_iter().zip(1..) {
        kept.write("s 1", question, &Answer::Unsatisfiable);
        let day = Duration::from_secs(86_400 * day);
        for file in files(&folder) {
            let file = std::fs::File::open(file).unwrap();
            if file.metadata().unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH + 2 * day {
                file.set_modified(SystemTime::UNIX_EPOCH + day).unwrap();
            }
        }
    }
    // A file of somebody else, older than all answers, in a folder of answers.
    let foreign = files(&folder).first().unwrap().with_file_name("notes.json");
    std::fs::write(&foreign, "mine").unwrap();
    std::fs::File::open(&foreign).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(kept.read("s 1", "first").is_some(), "used now");

    kept.trim();
    let left = questions.map(|question| kept.read("s 1", question).is_some());
    assert_eq!([true, false, false, true], left);
    assert!(foreign.exists());
    kept.trim();
    assert_eq!(3, files(&folder).len(), "nothing more is deleted");
    std::fs::remove_dir_all(&folder).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|one| one.unwrap().path());
    entries(folder).flat_map(|start| entries(&start).collect::<Vec<_>>()).collect()
}
