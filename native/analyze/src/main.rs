//! `authz-analyze SUBCOMMAND`: one JSON request on standard input, one JSON document on standard output, errors on standard error.
//!
//! Exit codes: 0 the document was written, 1 wrong use or a failure, 3 a bundle does not compile.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use authz_analyze::difference;
use authz_analyze::guards::Guards;
use authz_analyze::input::{AnalyzeRequest, DiffRequest, InputError, Options};
use authz_analyze::paths::PathsInput;
use authz_analyze::proofs;
use authz_analyze::solver::{
    KeptAnswers, NoSolver, OnceSolver, Solver, SolverProgram, SymbolicSolver,
};
use authz_kernel::diagnostic::{Diagnostic, Severity};
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Stack of the thread that works: Cedar's parsers recurse as deep as a policy nests.
const STACK_BYTES: usize = 512 * 1024 * 1024;

/// Version and profile of the build.
const VERSION: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_PKG_VERSION"), " debug")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " release")
};

/// Analyzes bundles before they serve.
#[derive(Debug, Parser)]
#[command(version = VERSION)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Verb,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Verb {
    /// Reports about one bundle: `{"bundle": {"files", "vars"}, "options": {…}}`.
    Analyze,
    /// Tells whether a bundle permits more than the one before: `{"old": {…}, "new": {…}, "options": {…}}`.
    Diff,
}

/// Cause of a failure.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the request cannot be read: {0}")]
    Request(#[from] serde_json::Error),
    #[error("standard input or output: {0}")]
    Stream(#[from] std::io::Error),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("the working thread ended early")]
    Thread,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let work = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run(arguments.subcommand))
        .map_err(Failure::from);
    let result = work.and_then(|thread| thread.join().unwrap_or(Err(Failure::Thread)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => explain(&failure),
    }
}

/// Writes a failure to standard error. The errors of a bundle are one JSON object a line.
fn explain(failure: &Failure) -> ExitCode {
    let mut text = String::new();
    let code = match failure {
        Failure::Input(InputError::Bundle(diagnostics)) => {
            let is_error = |one: &&Diagnostic| one.severity == Severity::Error;
            for diagnostic in diagnostics.iter().filter(is_error) {
                text += &serde_json::to_string(diagnostic).unwrap_or_default();
                text.push('\n');
            }
            3
        }
        other => {
            text = format!("{other}\n");
            1
        }
    };
    // Nobody is left to tell where standard error is closed.
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(code)
}

fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Analyze => {
            let request: AnalyzeRequest = read()?;
            let plan = Arc::new(request.bundle.compile(request.options.now_ms)?);
            let solver = solver(&request.options);
            let once = OnceSolver::new(&*solver, kept(&request.options));
            let mut report = proofs::analyze(&plan, &once);
            let guards = Guards::new(&plan, &once);
            PathsInput::new(&request, &plan)?.analyze(&guards).join(&mut report);
            trim(&request.options);
            write(&report)
        }
        Verb::Diff => {
            let request: DiffRequest = read()?;
            let old = request.old.compile(request.options.now_ms)?;
            let new = request.new.compile(request.options.now_ms)?;
            let solver = solver(&request.options);
            let once = OnceSolver::new(&*solver, kept(&request.options));
            let difference = difference::compare(&old, &new, &once);
            trim(&request.options);
            write(&difference)
        }
    }
}

fn read<T: DeserializeOwned>() -> Result<T, Failure> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn write(document: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    std::io::stdout().write_all(&text)?;
    Ok(())
}

fn kept(options: &Options) -> Option<KeptAnswers> {
    options.cache.clone().map(KeptAnswers::new)
}

/// Reduces the folder of answers to its size, after the answers of this run were written.
fn trim(options: &Options) {
    if let Some(answers) = kept(options) {
        answers.trim();
    }
}

/// The solver, or what stands in without one: an analysis without a solver proves nothing, and says so.
fn solver(options: &Options) -> Box<dyn Solver> {
    if options.solver.is_empty() {
        return Box::new(NoSolver::new("no solver is used"));
    }
    let program = SolverProgram {
        command: options.solver.clone(),
        limit: options.question_limit(),
        jobs: options.jobs,
    };
    match SymbolicSolver::start(program) {
        Ok(solver) => Box::new(solver),
        Err(error) => Box::new(NoSolver::new(error.to_string())),
    }
}
