//! Expands matrices to cases and traces, one for each cell of the table.
//!
//! A cell becomes the test that an author could have written by hand, so the checks and the run know nothing of matrices.

use std::collections::{BTreeMap, BTreeSet};

use authz_bundle::source::{At, Mark};
use authz_kernel::diagnostic::{Diagnostic, clip, unknown, unknown_word};
use authz_kernel::reason::ReasonCode;
use serde_json::Value;

use crate::case_file::{
    CallerForm, CaseStep, Expect, ExpectObject, MatrixCall, MatrixCaller, MatrixCell,
    MatrixContext, MatrixForm, OutcomeWord, RequestFields, Test,
};

/// Cells of all matrices of a file.
const MOST_CELLS: usize = 10_000;
/// Steps of all cells of a file.
const MOST_CELL_STEPS: usize = 50_000;
/// First word of the head.
const OPERATION: &str = "operation";
/// Second word of the head, where the matrix has contexts.
const CONTEXT: &str = "context";
/// TableCell of a call that is not made.
const ANY: &str = "any";
/// Outcomes of a cell.
const OUTCOMES: [OutcomeWord; 3] = [OutcomeWord::Permit, OutcomeWord::StepUp, OutcomeWord::Deny];

/// Replaces each test with a matrix by the tests of its cells, in the order of the table.
///
/// # Errors
/// The first error of a matrix, with its place.
pub(crate) fn expand(file: &str, tests: Vec<At<Test>>) -> Result<Vec<At<Test>>, Diagnostic> {
    if tests.iter().all(|test| test.value.matrix.is_none()) {
        return Ok(tests);
    }
    let mut expanded = Vec::with_capacity(tests.len());
    let mut room = CellRoom { cells: MOST_CELLS, steps: MOST_CELL_STEPS };
    for mut test in tests {
        match test.value.matrix.take() {
            None => expanded.push(test),
            Some(matrix) => {
                check_alone(file, &test)?;
                let table = MatrixTable { file, test: &test, form: &matrix.value, at: matrix.at };
                table.expand(&mut room, &mut expanded)?;
            }
        }
    }
    Ok(expanded)
}

/// Cells and steps that a file may still have.
struct CellRoom {
    cells: usize,
    steps: usize,
}

/// Refuses keys of a single call or of a trace beside a matrix.
fn check_alone(file: &str, test: &At<Test>) -> Result<(), Diagnostic> {
    let form = &test.value;
    let problem = if form.case.is_none() || form.trace.is_some() {
        Some(("a matrix is a `case`", "Name it by `case`."))
    } else if form.r#as.is_some() {
        Some(("the callers of a matrix are its `principals`", "Remove `as`."))
    } else if form.call.is_some()
        || form.http.is_some()
        || form.input.is_some()
        || form.input_text.is_some()
        || form.input_base64.is_some()
        || !form.request.is_empty()
        || form.evidence.is_some()
    {
        Some(("the calls of a matrix are its `operations`", "Move the call into `matrix`."))
    } else if form.steps.is_some() || form.task.is_some() {
        let fix = "Move them into `before` and `task` of a context.";
        Some(("a matrix has no `steps` and no `task` beside it", fix))
    } else if form.expect.is_some() {
        Some(("the expectations of a matrix are its `outcomes`", "Remove `expect`."))
    } else {
        None
    };
    match problem {
        Some((problem, fix)) => Err(Diagnostic::error(&test.at.within(file), problem, fix)),
        None => Ok(()),
    }
}

/// One matrix, and its test.
struct MatrixTable<'a> {
    file: &'a str,
    test: &'a At<Test>,
    form: &'a MatrixForm,
    at: Mark,
}

/// A principal, and its name.
type PrincipalColumn<'a> = (&'a str, &'a At<CallerForm>);

/// An entry of a matrix, and its name.
struct NamedEntry<'a, T> {
    name: &'a str,
    /// `None`: the entry has no content.
    value: Option<&'a T>,
}

impl<T> Clone for NamedEntry<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for NamedEntry<'_, T> {}

/// One cell: its coordinates and its expectation.
struct TableCell<'a> {
    principal: PrincipalColumn<'a>,
    operation: NamedEntry<'a, MatrixCall>,
    context: Option<NamedEntry<'a, MatrixContext>>,
    expect: Expect,
    at: Mark,
}

impl<'a> MatrixTable<'a> {
    fn expand(&self, room: &mut CellRoom, tests: &mut Vec<At<Test>>) -> Result<(), Diagnostic> {
        let Some((head, rows)) = self.form.outcomes.split_first() else {
            return self.fail(self.at, "`outcomes` is empty", "Begin with the head of the table.");
        };
        let columns = self.columns(head)?;
        if rows.is_empty() {
            return self.fail(head.at, "the table has no row", "Add a row for each call.");
        }
        let mut seen = BTreeSet::new();
        for row in rows {
            self.expand_row(&columns, row, &mut seen, room, tests)?;
        }
        let called = |name: &String| seen.iter().any(|(operation, _)| operation == name);
        if let Some(name) = self.form.operations.keys().find(|name| !called(name)) {
            return self.unused("operation", name);
        }
        let used = |name: &String| seen.iter().any(|(_, context)| *context == Some(name.as_str()));
        match self.form.contexts.keys().find(|name| !used(name)) {
            Some(name) => self.unused("context", name),
            None => Ok(()),
        }
    }

    /// Reads the head: the principals of the columns.
    fn columns(
        &self,
        head: &'a At<Vec<At<MatrixCell>>>,
    ) -> Result<Vec<PrincipalColumn<'a>>, Diagnostic> {
        let words: &[&str] = self.words();
        for (index, wanted) in words.iter().enumerate() {
            let given = head.value.get(index).map(|cell| &cell.value);
            if !matches!(given, Some(MatrixCell::Text(text)) if text == wanted) {
                let problem = format!("the head of the table begins with `{}`", words.join(", "));
                let fix = "Write the head as the first row of `outcomes`; after these words it names the principals.";
                return self.fail(head.at, &problem, fix);
            }
        }
        let mut columns: Vec<PrincipalColumn<'_>> = Vec::new();
        for cell in head.value.iter().skip(words.len()) {
            let name = self.name(cell, "principal")?;
            let Some((name, caller)) = self.form.principals.get_key_value(name) else {
                return Err(self.unknown("principal", name, cell.at, self.form.principals.keys()));
            };
            if columns.iter().any(|(column, _)| *column == name) {
                let problem = format!("the principal `{}` has two columns", clip(name));
                return self.fail(cell.at, &problem, "Remove one.");
            }
            columns.push((name, caller));
        }
        let has_column = |name: &String| columns.iter().any(|(column, _)| column == name);
        match self.form.principals.keys().find(|name| !has_column(name)) {
            Some(name) => self.unused("principal", name),
            None => Ok(columns),
        }
    }

    /// Words with which the head begins.
    fn words(&self) -> &'static [&'static str] {
        if self.form.contexts.is_empty() { &[OPERATION] } else { &[OPERATION, CONTEXT] }
    }

    fn expand_row(
        &self,
        columns: &[PrincipalColumn<'a>],
        row: &'a At<Vec<At<MatrixCell>>>,
        seen: &mut BTreeSet<(&'a str, Option<&'a str>)>,
        room: &mut CellRoom,
        tests: &mut Vec<At<Test>>,
    ) -> Result<(), Diagnostic> {
        let words = self.words().len();
        let wanted = words + columns.len();
        if row.value.len() != wanted {
            let problem =
                format!("the row has {} cells, and the head has {wanted}", row.value.len());
            return self.fail(row.at, &problem, "Write `any` for a call that is not made.");
        }
        let (names, cells) = row.value.split_at(words);
        let operation = self.entry("operation", names.first(), &self.form.operations, row.at)?;
        let context = match names.get(1) {
            Some(name) => Some(self.entry("context", Some(name), &self.form.contexts, row.at)?),
            None => None,
        };
        if !seen.insert((operation.name, context.map(|context| context.name))) {
            let problem = "the table has this call in this context twice";
            return self.fail(row.at, problem, "Keep one of the rows.");
        }
        for (principal, cell) in columns.iter().zip(cells) {
            let Some(expect) = self.expectation(cell)? else { continue };
            let cell = TableCell { principal: *principal, operation, context, expect, at: cell.at };
            let steps = cell.steps().len() + 1;
            match (room.cells.checked_sub(1), room.steps.checked_sub(steps)) {
                (Some(cells), Some(steps)) => *room = CellRoom { cells, steps },
                _ => {
                    let problem = format!(
                        "the matrices of the file have more than {MOST_CELLS} cells, or more than {MOST_CELL_STEPS} steps"
                    );
                    return self.fail(cell.at, &problem, "Split the file.");
                }
            }
            tests.push(At { value: self.test_of(cell)?, at: row.at });
        }
        Ok(())
    }

    /// The entry of a map that a cell names.
    fn entry<T>(
        &self,
        kind: &str,
        cell: Option<&'a At<MatrixCell>>,
        entries: &'a BTreeMap<String, Option<T>>,
        row: Mark,
    ) -> Result<NamedEntry<'a, T>, Diagnostic> {
        let Some(cell) = cell else {
            return self.fail(row, &format!("the row names no {kind}"), "Add its name.");
        };
        let name = self.name(cell, kind)?;
        match entries.get_key_value(name) {
            Some((name, value)) => Ok(NamedEntry { name, value: value.as_ref() }),
            None => Err(self.unknown(kind, name, cell.at, entries.keys())),
        }
    }

    fn name(&self, cell: &'a At<MatrixCell>, kind: &str) -> Result<&'a str, Diagnostic> {
        match &cell.value {
            MatrixCell::Text(text) => Ok(text),
            MatrixCell::Object(_) => {
                let problem = format!("a mapping is no name of {}", article(kind));
                self.fail(cell.at, &problem, "Write the name.")
            }
        }
    }

    /// The expectation of a cell; none where the call is not made.
    fn expectation(&self, cell: &At<MatrixCell>) -> Result<Option<Expect>, Diagnostic> {
        let text = match &cell.value {
            MatrixCell::Object(object) => return Ok(Some(Expect::Object(object.clone()))),
            MatrixCell::Text(text) if text == ANY => return Ok(None),
            MatrixCell::Text(text) => text,
        };
        let (word, code) = match text.split_once(' ') {
            Some((word, code)) => (word, Some(code.trim())),
            None => (text.as_str(), None),
        };
        let Some(outcome) = OUTCOMES.into_iter().find(|outcome| outcome.as_str() == word) else {
            let words = OUTCOMES.map(OutcomeWord::as_str);
            let words = words.into_iter().chain([ANY]);
            let (problem, fix) = unknown("outcome", word, words.map(|word| (word, None)));
            let fix =
                if fix.is_guess() { fix } else { "Write PERMIT, STEP_UP, DENY or any.".into() };
            return Err(Diagnostic::error(&cell.at.within(self.file), problem, fix));
        };
        let Some(code) = code else { return Ok(Some(Expect::Outcome(outcome))) };
        if ReasonCode::from_name(code).is_none() {
            let codes = ReasonCode::ALL.map(|code| code.as_str());
            let (problem, fix) = unknown_word("reason code", code, codes);
            return Err(Diagnostic::error(&cell.at.within(self.file), problem, fix));
        }
        let object = ExpectObject {
            outcome: Some(outcome),
            code: Some(code.to_owned()),
            ..ExpectObject::default()
        };
        Ok(Some(Expect::Object(Box::new(object))))
    }

    /// The test of a cell. It is a trace where its context has a task or earlier steps.
    fn test_of(&self, cell: TableCell<'a>) -> Result<Test, Diagnostic> {
        let own = &self.test.value;
        let name = own.case.as_ref().map(|name| At {
            value: format!("{}: {}", name.value, cell.coordinates()),
            at: name.at,
        });
        let call = cell.operation.value.and_then(|call| call.call.clone());
        let call =
            call.unwrap_or_else(|| At { value: cell.operation.name.to_owned(), at: cell.at });
        let input = self.input_of(&cell)?;
        let request = cell.request();
        let caller = cell.caller();
        let task = cell.facts().and_then(|context| context.task.clone());
        let test = Test { trace: None, case: None, matrix: None, ..own.clone() };
        if task.is_none() && cell.steps().is_empty() {
            return Ok(Test {
                case: name,
                r#as: Some(caller),
                call: Some(call),
                input,
                request,
                expect: Some(cell.expect),
                ..test
            });
        }
        let mut steps = cell.steps().to_vec();
        let step = CaseStep {
            r#as: task.is_some().then(|| in_task(&caller)),
            call: Some(call),
            input,
            request,
            ..CaseStep::of(cell.expect)
        };
        steps.push(At { value: step, at: cell.at });
        Ok(Test { trace: name, r#as: Some(caller), task, steps: Some(steps), ..test })
    }

    /// Arguments of the call; those of the context replace those of the operation.
    fn input_of(&self, cell: &TableCell<'_>) -> Result<Option<Value>, Diagnostic> {
        let of_context = cell.facts().and_then(|context| context.input.as_ref());
        let of_call = cell.operation.value.and_then(|call| call.input.as_ref());
        let (Some(own), Some(added)) = (of_call, of_context) else {
            return Ok(of_context.or(of_call).map(|input| input.value.clone()));
        };
        let (Value::Object(own), Value::Object(members)) = (&own.value, &added.value) else {
            let problem =
                "arguments of an operation and of a context are joined, so both are mappings";
            return self.fail(added.at, problem, "Write a mapping of names to values.");
        };
        let mut joined = own.clone();
        joined.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(Some(Value::Object(joined)))
    }

    fn fail<T>(&self, at: Mark, problem: &str, fix: &str) -> Result<T, Diagnostic> {
        Err(Diagnostic::error(&at.within(self.file), problem, fix))
    }

    fn unused<T>(&self, kind: &str, name: &str) -> Result<T, Diagnostic> {
        let place = if kind == "principal" { "column" } else { "row" };
        let problem = format!("the {kind} `{}` has no {place} in the table", clip(name));
        self.fail(self.at, &problem, "Use it in `outcomes`, or remove it.")
    }

    fn unknown<'n>(
        &self,
        kind: &str,
        name: &str,
        at: Mark,
        declared: impl Iterator<Item = &'n String>,
    ) -> Diagnostic {
        let (problem, fix) = unknown(kind, name, declared.map(|name| (name.as_str(), None)));
        Diagnostic::error(&at.within(self.file), problem, fix)
    }
}

impl<'a> TableCell<'a> {
    /// The context, where it has content.
    fn facts(&self) -> Option<&'a MatrixContext> {
        self.context.and_then(|context| context.value)
    }

    /// Steps before the call.
    fn steps(&self) -> &'a [At<CaseStep>] {
        self.facts().map_or(&[], |context| context.before.as_slice())
    }

    /// Names of principal, operation and context.
    fn coordinates(&self) -> String {
        let mut names = vec![self.principal.0, self.operation.name];
        names.extend(self.context.map(|context| context.name));
        names.join(", ")
    }

    /// The principal, with the facts of the context.
    fn caller(&self) -> At<CallerForm> {
        let mut caller = self.principal.1.clone();
        let facts = self.facts().and_then(|context| context.r#as.as_ref());
        if let Some(MatrixCaller { age, bound, confidence, satisfied }) = facts {
            let own = &mut caller.value;
            own.age = age.clone().or(own.age.take());
            own.bound = bound.unwrap_or(own.bound);
            own.confidence = confidence.unwrap_or(own.confidence);
            if let Some(satisfied) = satisfied {
                own.satisfied = satisfied.clone();
            }
        }
        caller
    }

    /// Fields of the request; those of the context replace those of the operation.
    fn request(&self) -> RequestFields {
        let own = self.operation.value.map(|call| call.request.clone()).unwrap_or_default();
        match self.facts() {
            Some(context) => own.replaced_by(context.request.clone()),
            None => own,
        }
    }
}

/// The noun of a message, with its article.
fn article(noun: &str) -> String {
    let is_vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if is_vowel { "an" } else { "a" })
}

/// The caller of a call in a task, which has the subject already.
fn in_task(caller: &At<CallerForm>) -> At<CallerForm> {
    let mut caller = caller.clone();
    if caller.value.agent.is_some() {
        caller.value.subject = None;
    }
    caller
}
