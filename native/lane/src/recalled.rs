//! The history that a decision recalls: records of the session, of the chain and of the object, as the call sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{
    Carrier, HistoryChanges, HistoryView, Holder, LabelOrigin, Object, ObjectView, Remembering,
    SessionContext, SessionHistory,
};
use authz_kernel::task::{
    Party, Record, RecordKey, RecordKind, RecordName, Session, TaskView, WordRecords,
};

use crate::origin_records::OriginRecords;

/// Records of the session that a decision is made in, of the parties of its chain, and of the object that it acts on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recalled {
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) agent: Option<Arc<Party>>,
    pub(crate) subject: Option<Arc<Party>>,
    pub(crate) pair: Option<Arc<Party>>,
    /// Labels of sessions that the agent shares with others; none if they were not looked up.
    pub(crate) shared: Option<Arc<BTreeMap<String, LabelOrigin>>>,
    pub(crate) remembering: Remembering,
    /// The session begins with the decision.
    pub(crate) begins: bool,
    pub(crate) object: Option<RecalledObject>,
    /// Who chose which value; none if the operation does not depend on it.
    pub(crate) origins: Option<OriginRecords>,
    /// Denials in the run of the task.
    pub(crate) denials: usize,
    /// The context of the session that the call names.
    pub(crate) context: Option<SessionContext>,
    /// The records as a call in that context sees them, where it sees less.
    pub(crate) seen: ContextHistories,
}

/// Histories without the labels that count only in other contexts. Default: all labels count.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContextHistories {
    session: Option<Box<SessionHistory>>,
    agent: Option<Box<SessionHistory>>,
    pair: Option<Box<SessionHistory>>,
}

/// Records of the object that an operation acts on, and of its collection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecalledObject {
    /// Default: the operation acts on the collection as a whole.
    pub(crate) object: Option<Arc<Object>>,
    /// Records under older spellings of the object's id.
    pub(crate) older: Vec<Arc<Object>>,
    pub(crate) collection: Arc<Object>,
}

impl RecalledObject {
    fn view(&self) -> ObjectView<'_> {
        let object = self.object.as_deref();
        ObjectView { object, older: &self.older, collection: &self.collection }
    }

    fn keys(&self) -> impl Iterator<Item = RecordKey> {
        let all = [&self.collection].into_iter().chain(&self.object).chain(&self.older);
        all.map(|one| RecordKey::new(RecordKind::Object, &one.id))
    }
}

impl Recalled {
    /// The same history, for a session that begins with the decision.
    pub(crate) fn beginning(self, session: Session) -> Self {
        let mut recalled = Self { begins: true, ..self };
        recalled.set_session(Some(Arc::new(session)));
        recalled
    }

    /// The id of the session, and whether it is the session of a caller without a task.
    pub(crate) fn of_session(&self) -> Option<(&str, bool)> {
        self.session.as_deref().map(|session| (session.id.as_str(), session.is_taskless()))
    }

    /// Whether the session has no history yet: it may begin with the decision.
    pub(crate) fn is_new(&self) -> bool {
        self.begins || self.history().is_some_and(SessionHistory::is_empty)
    }

    /// Denials in the run of the task, if the bundle counts them.
    pub(crate) const fn denials(&self) -> usize {
        self.denials
    }

    pub(crate) fn count_denials(&mut self, task: TaskView<'_>) {
        self.denials = self.view().map_or(0, |view| view.count_denials(task));
    }

    /// The history as the kernel reads it; none if it was not recalled.
    pub(crate) fn view<'a>(&'a self) -> Option<HistoryView<'a>> {
        let of = |party: Option<&'a Arc<Party>>, seen: &'a Option<Box<SessionHistory>>| {
            party.map(|party| seen.as_deref().unwrap_or(&party.history))
        };
        let values = |session: &'a SessionHistory| match &self.origins {
            Some(origins) => origins.values(session),
            None => &session.values,
        };
        self.seen().map(|session| HistoryView {
            session,
            values: values(session),
            agent: of(self.agent.as_ref(), &self.seen.agent),
            subject: self.subject.as_deref().map(|party| &party.history),
            pair: of(self.pair.as_ref(), &self.seen.pair),
            shared: self.shared.as_deref(),
            remembering: self.remembering,
            object: self.object.as_ref().map(RecalledObject::view),
        })
    }

    /// The words of the task's prompts.
    pub(crate) fn words(&self) -> WordRecords<'_> {
        self.origins.as_ref().map(OriginRecords::words).unwrap_or_default()
    }

    /// Recalls the values of the session, if the operation depends on where its values come from. `read` gives records.
    pub(crate) fn recall_values<E>(
        &mut self,
        read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
    ) -> Result<(), E> {
        match (&mut self.origins, &self.session) {
            (Some(origins), Some(session)) => origins.recall_values(session, read),
            _ => Ok(()),
        }
    }

    /// The session's history as the call sees it; none if it was not recalled.
    pub(crate) fn seen(&self) -> Option<&SessionHistory> {
        let session = self.session.as_deref()?;
        Some(self.seen.session.as_deref().unwrap_or(&session.history))
    }

    /// Digest of the session's context that the call names; empty if it names none.
    pub(crate) fn context(&self) -> &str {
        self.context.as_ref().map_or("", SessionContext::as_str)
    }

    /// The session's whole history; none if it was not recalled.
    pub(crate) fn history(&self) -> Option<&SessionHistory> {
        self.session.as_deref().map(|session| &session.history)
    }

    /// The labels that the agent remembers of other tasks, if they count.
    pub(crate) fn remembered(&self, now: Time) -> impl Iterator<Item = (&str, Carrier<'_>)> {
        let view = self.view().filter(|view| view.agent.is_some() && view.pair.is_some());
        view.into_iter().flat_map(move |view| view.remembered(now))
    }

    /// How the labels of the call are remembered.
    pub(crate) const fn remembering(&self) -> Remembering {
        self.remembering
    }

    /// The record that remembers the labels of a call of its own agent; none if only the session does.
    pub(crate) fn memory_of(&self, changes: &HistoryChanges) -> Option<RecordName> {
        let remembered = changes.remembered.as_ref()?;
        let (kind, id) = match remembered.holder {
            Holder::Session => return None,
            Holder::Agent => (RecordKind::Agent, &self.agent.as_ref()?.id),
            Holder::Subject => (RecordKind::Subject, &self.subject.as_ref()?.id),
            Holder::Pair => (RecordKind::Pair, &self.pair.as_ref()?.id),
        };
        Some(RecordName { kind, id: id.clone() })
    }

    /// The labels of the object, from the agents that wrote it.
    pub(crate) fn written(&self, now: Time) -> impl Iterator<Item = (&str, &LabelOrigin)> {
        self.object.iter().flat_map(move |found| found.view().labels(now))
    }

    /// The records of the object.
    pub(crate) fn object_keys(&self) -> impl Iterator<Item = RecordKey> {
        self.object.iter().flat_map(RecalledObject::keys)
    }

    pub(crate) fn party(&self, holder: Holder) -> Option<&Arc<Party>> {
        match holder {
            Holder::Session => None,
            Holder::Agent => self.agent.as_ref(),
            Holder::Subject => self.subject.as_ref(),
            Holder::Pair => self.pair.as_ref(),
        }
    }

    pub(crate) fn set(&mut self, holder: Holder, party: Arc<Party>) {
        let seen = seen_in(self.context.as_ref(), &party.history);
        match holder {
            Holder::Session => {}
            Holder::Agent => (self.agent, self.seen.agent) = (Some(party), seen),
            Holder::Subject => self.subject = Some(party),
            Holder::Pair => (self.pair, self.seen.pair) = (Some(party), seen),
        }
    }

    pub(crate) fn set_session(&mut self, session: Option<Arc<Session>>) {
        let known = session.as_deref();
        self.seen.session =
            known.and_then(|session| seen_in(self.context.as_ref(), &session.history));
        self.session = session;
    }
}

/// A history as a call in a context sees it. `None`: the call sees the whole history.
fn seen_in(
    context: Option<&SessionContext>,
    history: &SessionHistory,
) -> Option<Box<SessionHistory>> {
    context.and_then(|context| history.seen_in(context)).map(Box::new)
}
