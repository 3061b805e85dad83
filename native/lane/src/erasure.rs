//! `authz.v1.Admin/RecordErasure`: an administrator erases texts from ended segments of the audit log.
//!
//! The node does not touch the files: it writes the record before the administrator's command replaces them, so that no text is
//! erased without one.

use authz_state::store::Survives;

use crate::api_call::{
    ApiCaller, ApiMessage, ApiOutcome, CallerEvidence, GrantedChange, WithRecord as _, check_admin,
};
use crate::engine::Engine;
use crate::judgement::{ApiNotes, ApiRecord, ErasureNote};
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::request::check_length;
use crate::world::Way;

/// Administrator of a call that names none.
const OWNER: &str = "owner of the administration socket";

impl ApiMessage for wire::RecordErasureRequest {
    const OPERATION: &'static str = "authz.record_erasure";
    const UNREADABLE: &'static str = "the bytes are no RecordErasureRequest";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Socket
    }

    fn check_listener(way: Option<&Way>) -> Result<(), CallRefusal> {
        check_admin(way, "only an administration listener records an erasure")
    }
}

impl Engine {
    /// Records an erasure.
    ///
    /// # Errors
    /// The listener is not an administration listener, the request names no texts or no reason, or the record cannot be made durable.
    pub(crate) fn record_erasure(
        &self,
        message: &wire::RecordErasureRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::RecordErasureResponse> {
        let note = read_note(message)?;
        let text = format!("{} texts of {} records erased", note.texts, note.records);
        let notes = ApiNotes { erasure: Some(note), ..ApiNotes::default() };
        let record = ApiRecord { notes, ..ApiRecord::default() };
        let answer = || wire::RecordErasureResponse { decision_id: caller.arrival.id.to_string() };
        self.change_granted(caller, &record, &[], Survives::PowerLoss, &mut |_| {
            Ok(GrantedChange::new(answer(), text.clone()))
        })
        .with_record(&record)
    }
}

fn read_note(message: &wire::RecordErasureRequest) -> Result<ErasureNote, CallRefusal> {
    let wire::RecordErasureRequest { selection, texts, records, reason, by } = message.clone();
    for (name, text, most) in
        [("selection", &selection, limits::SELECTION), ("reason", &reason, limits::REASON)]
    {
        if text.trim().is_empty() {
            return Err(CallRefusal::input(format!("`{name}` is empty")));
        }
        check_length(name, text, most)?;
    }
    check_length("by", &by, limits::REVOKED_BY)?;
    if texts < records || records == 0 {
        return Err(CallRefusal::input("`texts` and `records` are not numbers of erased texts"));
    }
    let by = if by.is_empty() { OWNER.to_owned() } else { by };
    Ok(ErasureNote { selection, texts, records, reason, by })
}
