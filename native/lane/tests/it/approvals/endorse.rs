//! Endorsed values: an answer that also covers later calls with the same values, within the limits that the person was shown.

use authz_lane::proto::authz::v1::TaskStatus;

use super::*;

/// Recipients that nobody named need another person, who may endorse them.
const COVERS: &str = r#"@id("recipients") @stepup("approve") @covers("bank.send, bank.reply, bank.wire; uses=2; within=4m")
forbid(principal, action in [Action::"bank.send", Action::"bank.reply", Action::"bank.wire", Action::"bank.forward"], resource)
unless { [Origin::"named", Origin::"known"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::"approve") };"#;
/// The same without `@covers`.
const HELD: &str = r#"@id("recipients") @stepup("approve")
forbid(principal, action in [Action::"bank.send", Action::"bank.reply", Action::"bank.wire", Action::"bank.forward"], resource)
unless { [Origin::"named", Origin::"known"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::"approve") };"#;

impl Bank {
    fn to(&self, operation: &str, to: &str, text: &str) -> wire::CheckRequest {
        calling(&self.task, operation, &json!({"to": to, "text": text}))
    }

    fn send(&self, to: &str, text: &str) -> wire::CheckRequest {
        self.to("bank.send", to, text)
    }

    fn endorse(&self, id: &str) -> Result<wire::Approval, &'static str> {
        endorse_at(&self.served, id)
    }

    /// Makes a call that people approve and whose values they endorse.
    fn endorsed(&self, to: &str) -> String {
        let request = self.send(to, "first");
        let id = self.asked(&request);
        self.endorse(&id).unwrap();
        assert_eq!("PERMITTED", self.code(&request));
        id
    }
}

fn endorse_at(served: &Served, id: &str) -> Result<wire::Approval, &'static str> {
    let request = wire::ResolveRequest { endorse: true, ..answering(served, id, true) };
    resolve(served, &manager("bob"), &request).map_err(|error| error.reason_code.as_str())
}

/// An endorsed value counts as named: for its operations, up to the tier that was shown, as often as the rule says.
#[test]
fn an_endorsed_value_counts_within_its_limits() {
    let bank = Bank::with(COVERS);
    let first = bank.send("DE1", "first");
    let id = bank.asked(&first);
    let offer = bank.show(&manager("bob"), &id).unwrap().endorses.unwrap();
    assert_eq!(
        ["bank.reply", "bank.send", "bank.wire"].map(str::to_owned).to_vec(),
        offer.operations
    );
    assert_eq!(
        (2, 240, None, wire::Tier::Standard as i32),
        (offer.uses, offer.within_seconds, offer.until, offer.max_tier)
    );
    let values: Vec<(&str, &str, &str)> =
        offer.values.iter().map(|one| (&*one.role, &*one.collection, &*one.value)).collect();
    assert_eq!(vec![("recipient", "accounts", "DE1")], values);
    let answered = bank.endorse(&id).unwrap();
    assert!(answered.answers[0].endorsed);
    let until = bank.clock.since_1970() + Duration::from_secs(240);
    assert_eq!(
        i64::try_from(until.as_secs()).unwrap(),
        answered.endorses.unwrap().until.unwrap().seconds
    );
    assert_eq!("PERMITTED", bank.code(&first), "the approval covers the call itself");
    assert_eq!("PERMITTED", bank.code(&bank.to("bank.reply", "DE1", "second")));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.send("DE2", "another value")));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.to("bank.forward", "DE1", "not covered")));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.to("bank.wire", "DE1", "a higher tier")));
    assert_eq!("PERMITTED", bank.code(&bank.send("DE1", "third")));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.send("DE1", "it was used twice")));
    let notes = bank.notes();
    let relied: Vec<&Value> = notes.iter().filter(|note| note["event"] == "relied").collect();
    assert_eq!(2, relied.len());
    let endorsed = json!([{"approval_id": id, "role": "recipient", "collection": "accounts"}]);
    for note in relied {
        assert_eq!(
            (&json!(id), &json!(["corp/bob"]), &endorsed),
            (&note["id"], &note["by"], &note["endorsed"])
        );
    }
    let approved = notes.iter().find(|note| note["event"] == "approved").unwrap();
    assert_eq!(json!(true), approved["endorses"]);
}

/// An approval without an endorsement covers its call and nothing else. Where a rule allows none, none is given.
#[test]
fn a_plain_approval_endorses_nothing() {
    let bank = Bank::with(COVERS);
    let first = bank.send("DE1", "first");
    let id = bank.asked(&first);
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&first));
    let id = bank.asked(&bank.send("DE1", "second"));
    let rejecting = wire::ResolveRequest { endorse: true, ..answering(&bank.served, &id, false) };
    let refused = resolve(&bank.served, &manager("bob"), &rejecting).unwrap_err();
    assert_eq!("BAD_INPUT", refused.reason_code.as_str());

    let bank = Bank::with(HELD);
    let id = bank.asked(&bank.send("DE1", "first"));
    assert_eq!(None, bank.show(&manager("bob"), &id).unwrap().endorses);
    assert_eq!(Err("BAD_INPUT"), bank.endorse(&id).map(drop));
    bank.approve(&manager("bob"), &id).unwrap();

    let more = r#"@id("also") @stepup("approve") forbid(principal, action == Action::"bank.send", resource)
        unless { context.satisfied.contains(Kind::"approve") };"#;
    let bank = Bank::with(&format!("{COVERS}\n{more}"));
    let id = bank.asked(&bank.send("DE1", "first"));
    assert_eq!(
        None,
        bank.show(&manager("bob"), &id).unwrap().endorses,
        "one rule has no `@covers`"
    );
}

/// An endorsement ends at its time.
#[test]
fn an_endorsement_ends() {
    let bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    bank.clock.advance(Duration::from_millis(239_999));
    assert_eq!("PERMITTED", bank.code(&bank.send("DE1", "just in time")));
    bank.clock.advance(Duration::from_millis(1));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.send("DE1", "late")));
}

/// A call may carry only labels that the person was shown.
#[test]
fn another_label_asks_anew() {
    let bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    assert_eq!("PERMITTED", bank.code(&calling(&bank.task, "bank.read", &json!({}))));
    let later = bank.send("DE1", "after reading a secret");
    let id = bank.asked(&later);
    bank.endorse(&id).unwrap();
    assert_eq!("PERMITTED", bank.code(&later));
    assert_eq!("PERMITTED", bank.code(&bank.send("DE1", "the label was shown")));
}

/// An endorsement is of one task: neither of another one, nor of one below it.
#[test]
fn another_task_asks_anew() {
    let mut bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    let parent = wire::Task { id: bank.task.clone(), ..wire::Task::default() };
    let child =
        crate::tasks::delegate(&bank.served, &crate::tasks::delegating(&parent, BOT, BOT)).unwrap();
    let in_child = calling(&child.id, "bank.send", &json!({"to": "DE1", "text": "below"}));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&in_child));
    let first = std::mem::take(&mut bank.task);
    bank.task = bank.start();
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.send("DE1", "another task")));
    bank.task = first;
    let id = bank.asked(&bank.send("DE2", "second"));
    let by = vec![agent(BOT)];
    crate::tasks::end(&bank.served, &bank.task, by, TaskStatus::Completed).unwrap();
    assert_eq!("TASK_ENDED", bank.code(&bank.send("DE1", "the task has ended")));
    assert_eq!(Err("TASK_ENDED"), bank.endorse(&id).map(drop));
}

/// A later rejection of the value ends its endorsement.
#[test]
fn a_rejection_ends_an_endorsement() {
    let bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    bank.endorsed("DE2");
    let id = bank.asked(&bank.to("bank.forward", "DE1", "no"));
    bank.answer(&manager("bob"), &id, false).unwrap();
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.send("DE1", "after the rejection")));
    assert_eq!("PERMITTED", bank.code(&bank.send("DE2", "another value")));
}

/// An endorsement lifts the rules that the person was shown, as they stood.
#[test]
fn a_changed_rule_asks_anew() {
    let bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    bank.load(&COVERS.replace("uses=2", "uses=3"));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.send("DE1", "the rule has changed")));
    bank.load(COVERS);
    assert_eq!("PERMITTED", bank.code(&bank.send("DE1", "the old rule is back")));
}

/// An agent that controls a browser from now on could have endorsed the values itself, unless the person used a passkey.
#[test]
fn an_endorsement_by_a_login_ends_where_a_passkey_is_needed() {
    let bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    bank.served.engine.load(world_by(COVERS, &[STEERS])).unwrap();
    let next = bank.send("DE1", "the agent controls a browser now");
    let id = bank.asked(&next);
    let record = json!({
        "issuer": "corp", "sub": "bob", "credential_id": "Y3JlZA", "public_key": "a2V5", "created_at": 1,
    });
    bank.served.engine.put_passkey(record.to_string().as_bytes()).unwrap();
    let by_bob = by_passkey(&manager("bob"));
    let answer = wire::ResolveRequest { endorse: true, ..answering(&bank.served, &id, true) };
    resolve(&bank.served, &by_bob, &answer).unwrap();
    assert_eq!("PERMITTED", bank.code(&next));
    assert_eq!("PERMITTED", bank.code(&bank.send("DE1", "endorsed by a passkey")));
}

/// A task keeps a bounded number of endorsed values. Plain approvals go on.
#[test]
fn a_full_task_endorses_no_more() {
    let bank = Bank::with(COVERS);
    let many: Vec<String> = (0..31).map(|number| format!("DE1{number:02}")).collect();
    let all = json!({"to": "DE1", "text": "all", "also": many});
    let id = bank.asked(&calling(&bank.task, "bank.send", &all));
    bank.endorse(&id).unwrap();
    let next = bank.send("DE2", "one more");
    let id = bank.asked(&next);
    assert_eq!(Err("OVERLOADED"), bank.endorse(&id).map(drop));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&next));
    assert_eq!("PERMITTED", bank.code(&bank.send("DE130", "one of the list")));
}

/// Of many calls at the same moment, as many are permitted as there are uses.
#[test]
fn calls_at_once_share_the_uses() {
    let bank = Bank::with(COVERS);
    bank.endorsed("DE1");
    let permitted = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6)
            .map(|number| {
                let request = bank.send("DE1", &format!("at once {number}"));
                let served = &bank.served;
                scope.spawn(move || code(&served.check(&request)) == "PERMITTED")
            })
            .collect();
        calls.into_iter().map(|call| usize::from(call.join().unwrap())).sum::<usize>()
    });
    assert_eq!(2, permitted);
}

/// Endorsements outlive the process.
#[test]
fn a_restart_keeps_endorsements() {
    let folder = folder();
    let state = json!({"state": {"engine": "embedded", "path": folder.join("state")}});
    let serve = || {
        let served = unloaded(&state);
        served.engine.load(world_by(COVERS, &[])).unwrap();
        served
    };
    let first = serve();
    let task = start_at(&first);
    let send = |text: &str| calling(&task, "bank.send", &json!({"to": "DE1", "text": text}));
    let id = first.check(&send("first")).challenge.unwrap().approval_id;
    endorse_at(&first, &id).unwrap();
    assert_eq!("PERMITTED", code(&first.check(&send("second"))));
    first.engine.close();
    drop(first);
    let second = serve();
    assert_eq!("PERMITTED", code(&second.check(&send("third"))));
    assert_eq!("APPROVAL_REQUIRED", code(&second.check(&send("fourth"))));
}
