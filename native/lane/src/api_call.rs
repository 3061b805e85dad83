//! Calls that answer no decision of an operation: tasks, credentials, reports and administration.

use authz_token::Evidence;

use crate::ask::Refused;
use crate::engine::Engine;
use crate::judgement::Judgement;
use crate::settings::Surface;
use crate::steps::record::{KeptRecord, RecordOrigin};
use crate::transport::Transport;

impl Engine {
    /// Reads the message of a call, runs the call, and records what came of it.
    ///
    /// Args:
    /// * `decode`: reads the message.
    /// * `run`: admits and identifies the caller, and does what the message asks for. It gets the message, the record of the
    ///   call, the evidence that the record must not repeat, and the origin of the call. It returns the answer, and the record
    ///   where that went with a change.
    ///
    /// Returns: the record, and the answer unless the call was refused.
    pub(crate) fn api_call<M, T>(
        &self,
        surface: Surface,
        transport: &Transport<'_>,
        decode: impl FnOnce() -> Result<M, Refused>,
        run: impl for<'m> FnOnce(
            &'m M,
            &Transport<'m>,
            &mut Judgement,
            &mut Vec<Evidence<'m>>,
            &RecordOrigin,
        ) -> Result<(T, Option<KeptRecord>), Refused>,
    ) -> (Box<Judgement>, Option<T>) {
        let mut record = self.judgement(surface, self.world(), transport);
        let line = self.recorded(transport);
        let message = match decode() {
            Ok(message) => message,
            Err(refused) => {
                self.refuse_unless_unready(&mut record, transport, refused);
                return (self.conclude(record, &[], transport, line, None), None);
            }
        };
        let mut evidence = Vec::new();
        let (answer, kept) = match run(&message, transport, &mut record, &mut evidence, &line) {
            Ok((answer, kept)) => (Some(answer), kept),
            Err(refused) => {
                record.refuse(refused);
                (None, None)
            }
        };
        (self.conclude(record, &evidence, transport, line, kept), answer)
    }
}
