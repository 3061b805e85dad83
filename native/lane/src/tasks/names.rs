//! `authz.v1.Admin/TaskNames`: what the prompts of a task name, and where candidate values come from.
//!
//! INVARIANT (no oracle for agents): an answer tells which values a call may have. Only the owner of the administration socket
//! asks, and no evidence of an agent is read.

use authz_kernel::decide::{CandidateValue, origin_of_candidate};
use authz_kernel::decision::Facts;
use authz_kernel::history::{HistoryView, MAX_VALUES, SessionHistory};
use authz_kernel::task::{
    MAX_WORDS, Names, Param, Record, RecordKey, RecordKind, Session, Speaker, SpokenWords, Task,
};

use crate::api_call::{
    ApiCaller, ApiGrant, ApiMessage, ApiOutcome, CallerEvidence, WithRecord as _, check_admin,
};
use crate::engine::Engine;
use crate::judgement::ApiRecord;
use crate::limits;
use crate::locate::{self, Located};
use crate::origin_records::OriginRecords;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::request::{check_id, check_length};
use crate::steps::judge::kernel_facts;
use crate::world::Way;

/// CandidateValue values of one call.
const MOST_CANDIDATES: usize = 32;
/// Speakers, from the best to the worst, and their words on the wire.
const SPEAKERS: [(Speaker, &str); 3] =
    [(Speaker::Subject, "user"), (Speaker::Harness, "harness"), (Speaker::Agent, "agent")];

impl ApiMessage for wire::TaskNamesRequest {
    const OPERATION: &'static str = "authz.task.names";
    const UNREADABLE: &'static str = "the bytes are no TaskNamesRequest";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Socket
    }

    fn check_listener(way: Option<&Way>) -> Result<(), CallRefusal> {
        check_admin(way, "only an administration listener says what a task names")
    }
}

impl Engine {
    /// Says what a task names.
    ///
    /// # Errors
    /// The listener is not an administration listener, there is no such task, a value is in no form that calls have, or the store
    /// fails.
    pub(crate) fn task_names(
        &self,
        message: &wire::TaskNamesRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::TaskNamesResponse> {
        check_message(message)?;
        let located = locate::find(&self.keeper, &message.task, caller.wait)?;
        let record = ApiRecord::of_task(&located.task);
        let answer = self.names_of_task(message, &located, caller).with_record(&record)?;
        let text = "the names of the task may be read";
        Ok(ApiGrant::unchanged(answer, text).with_record(&record))
    }

    fn names_of_task(
        &self,
        message: &wire::TaskNamesRequest,
        located: &Located,
        caller: &ApiCaller<'_>,
    ) -> Result<wire::TaskNamesResponse, CallRefusal> {
        let (view, plan, now) = (located.view(), caller.plan(), caller.now());
        let read = |key: &RecordKey| self.keeper.peek(key, caller.wait);
        let mut origins = OriginRecords::of_task(view, read)?;
        let session = self.session_of(&located.task, caller)?;
        let nothing = SessionHistory::new();
        let history = session.as_deref().map_or(&nothing, |session| &session.history);
        if let Some(session) = &session {
            origins.recall_values(session, read)?;
        }
        let values = origins.values(history);
        let secret = self.keeper.store().secret();
        let facts = Facts {
            history: Some(HistoryView { values, ..HistoryView::new(history) }),
            words: origins.words(),
            value_key: Some(self.keeper.value_key()),
            endorsed: &[],
            recipient_lists: Some(&caller.world.recipient_lists),
            ..kernel_facts(
                &caller.arrival,
                caller.facts(),
                caller.chain(),
                Some(view),
                Some(&secret),
            )
        };
        let given = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        let (system, collection) = (given(&message.system), given(&message.collection));
        let origin = |value: &String| {
            let candidate = CandidateValue {
                value,
                system: system.as_deref(),
                collection: collection.as_deref(),
            };
            let told = origin_of_candidate(plan, &facts, &candidate, now)
                .map_err(|error| CallRefusal::input(format!("`{value}`: {error}")))?;
            Ok(wire::ValueOrigin {
                value: value.clone(),
                origin: told.origin.as_str().to_owned(),
                system: told.system,
                why: told.why,
                missing: told.missing,
            })
        };
        let told: Result<Vec<wire::ValueOrigin>, CallRefusal> =
            message.values.iter().map(origin).collect();
        let words = origins.words().of(view);
        let is_missing = |task: &Task, has_record: bool| task.names.has_words && !has_record;
        Ok(wire::TaskNamesResponse {
            spoken: spoken(view.root(), view.task, words),
            most_words: count(MAX_WORDS),
            words_full: words.iter().any(|words| words.is_full()),
            words_missing: is_missing(view.task, origins.words().task.is_some())
                || is_missing(view.root(), origins.words().root.is_some()),
            parameters: parameters(view.root()),
            templates: [Some(view.root()), below_root(view.root(), view.task)]
                .into_iter()
                .flatten()
                .filter_map(|task| Some((task, plan.template(&task.template)?)))
                .filter(|(_, template)| !template.names.is_empty())
                .map(|(task, template)| wire::TemplateNames {
                    template: task.template.clone(),
                    names: template.names.iter().cloned().collect(),
                })
                .collect(),
            known_values: count(values.len()),
            most_values: count(MAX_VALUES),
            values: told?,
        })
    }

    fn session_of(
        &self,
        task: &Task,
        caller: &ApiCaller<'_>,
    ) -> Result<Option<std::sync::Arc<Session>>, CallRefusal> {
        let key = RecordKey::new(RecordKind::Session, &task.session);
        Ok(match self.keeper.peek(&key, caller.wait)? {
            Some(Record::Session(session)) => Some(session),
            _ => None,
        })
    }
}

fn check_message(message: &wire::TaskNamesRequest) -> Result<(), CallRefusal> {
    if message.task.is_empty() {
        return Err(CallRefusal::input("`task` is empty"));
    }
    check_id("task", &message.task)?;
    check_id("system", &message.system)?;
    check_id("collection", &message.collection)?;
    if message.values.len() > MOST_CANDIDATES {
        return Err(CallRefusal::input(format!("`values` has more than {MOST_CANDIDATES} items")));
    }
    message.values.iter().try_for_each(|value| check_length("values", value, limits::VALUE))
}

/// The task, where it is not the root.
fn below_root<'a>(root: &Task, task: &'a Task) -> Option<&'a Task> {
    (!std::ptr::eq(root, task)).then_some(task)
}

/// What each kind of speaker named, in the task and in its root together.
fn spoken(root: &Task, task: &Task, words: [&SpokenWords; 2]) -> Vec<wire::SpokenNames> {
    let [of_root, of_task] = words;
    let named = |names: &Names, by| match by {
        Speaker::Subject | Speaker::FrontEnd => names.user.len(),
        Speaker::Harness => names.harness.len(),
        Speaker::Agent => names.claimed.len(),
    };
    let tasks = [Some((root, of_root)), below_root(root, task).map(|task| (task, of_task))];
    SPEAKERS
        .into_iter()
        .map(|(by, word)| {
            let tasks = || tasks.iter().flatten();
            let said = tasks().map(|(_, words)| words.of(by).len());
            let names = tasks().map(|(task, _)| named(&task.names, by));
            wire::SpokenNames {
                by: word.to_owned(),
                words: count(said.fold(0, usize::saturating_add)),
                names: count(names.fold(0, usize::saturating_add)),
            }
        })
        .collect()
}

/// The parameters whose values are names: those of the root, which its starter gave.
fn parameters(root: &Task) -> Vec<String> {
    let names = root.params.iter().filter(|(_, value)| !matches!(value, Param::Bool(_)));
    names.map(|(name, _)| name.clone()).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
