//! `BatchCheck`: probes of many calls at once.

use prost::Message;

use crate::answer;
use crate::engine::Engine;
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::request::AgentClaim;
use crate::settings::Surface;
use crate::steps::record::{Reply, UnansweredCall};
use crate::transport::Transport;

impl Engine {
    /// Judges a batch: SNAPSHOT, PROBE items, at most 100; anything else is BAD_INPUT for every item.
    ///
    /// Items that cannot be counted, or are too many, get one decision together.
    #[must_use]
    pub fn batch_check(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.guarded(transport.lane, Surface::BatchCheck, || self.batch(request, transport))
    }

    fn batch(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        let world = self.world.load_full();
        let message: Result<wire::BatchCheckRequest, CallRefusal> =
            self.decode(request, "the bytes are no BatchCheckRequest");
        let (items, refused) = match message {
            Ok(message) => {
                let refused = batch_refusal(&message);
                (message.items, refused)
            }
            Err(refused) => (Vec::new(), Some(refused)),
        };
        let mut pending: Vec<UnansweredCall> = Vec::new();
        match refused {
            None => {
                for item in &items {
                    let arrival = self.arrival(Surface::BatchCheck, world.clone(), transport);
                    pending.push(self.begin_own(arrival, item, transport));
                }
            }
            Some(refused) => {
                let count = if items.len() > limits::BATCH { 1 } else { items.len().max(1) };
                for _ in 0..count {
                    let arrival = self.arrival(Surface::BatchCheck, world.clone(), transport);
                    let refused = refused.clone();
                    let claim = AgentClaim::default();
                    let refused =
                        self.refuse_message(arrival, transport, claim, refused, Reply::Own);
                    pending.push(refused);
                }
            }
        }
        let mut decisions = Vec::with_capacity(pending.len());
        for mut item in pending {
            let recorded = self.wait(&mut item);
            let judgement = self.end_call(item, recorded);
            decisions.push(answer::own(&judgement));
        }
        wire::BatchCheckResponse { decisions }.encode_to_vec()
    }
}

fn batch_refusal(message: &wire::BatchCheckRequest) -> Option<CallRefusal> {
    let refuse = |what: &str| Some(CallRefusal::input(what));
    match wire::BatchMode::try_from(message.mode) {
        Ok(wire::BatchMode::Snapshot) => {}
        _ => return refuse("`mode` is not SNAPSHOT"),
    }
    if message.items.is_empty() {
        return refuse("there are no items");
    }
    if message.items.len() > limits::BATCH {
        return refuse("there are more than 100 items");
    }
    let all_probe = message.items.iter().all(|item| item.mode == wire::Mode::Probe as i32);
    if !all_probe {
        return refuse("every item of a SNAPSHOT must say PROBE");
    }
    None
}
