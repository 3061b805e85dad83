//! Converts approvals to messages.

use authz_kernel::decision::Time;
use authz_kernel::model::ApprovalRules;
use authz_kernel::task::TaskSubject;
use authz_kernel::task::approval::{Approval, ApprovalStatus};

use crate::proto::authz::v1 as wire;
use crate::protobuf::timestamp;

/// Returns the approval as a person sees it.
pub(super) fn whole(approval: &Approval, rules: &ApprovalRules, now: Time) -> wire::Approval {
    let status = approval.status_at(now);
    let rejection = approval.rejection();
    wire::Approval {
        id: approval.approval_id(),
        decision_id: approval.decision_id.clone(),
        operation: approval.operation.clone(),
        digest: bytes_of(&approval.digest),
        kinds: approval.kinds.clone(),
        status: status_of(status) as i32,
        resolved_by: approval.answers.iter().map(|answer| answer.person.clone()).collect(),
        expires_at: Some(timestamp(approval.ends_at())),
        arguments_json: approval.arguments.clone().into_bytes(),
        task: if approval.in_task { approval.task.clone() } else { String::new() },
        created_at: Some(timestamp(approval.created_at)),
        shown_at: approval.shown_at.map(timestamp),
        subject: approval.subject.as_ref().map(name_of_subject).unwrap_or_default(),
        agents: approval.agents.iter().map(|agent| agent.spiffe_id.clone()).collect(),
        template: approval.template.clone(),
        purpose: approval.purpose.clone(),
        effects: approval.effects.clone(),
        tier: tier_of(approval.tier) as i32,
        resource: approval.resource.clone(),
        destinations: approval
            .destinations
            .iter()
            .map(|one| wire::ApprovalDestination {
                value: one.value.clone(),
                destination_class: one.class.clone(),
                host: one.host.clone(),
                recipient_list: one.recipient_list.clone(),
                origin: one.origin.clone(),
            })
            .collect(),
        objects: approval
            .objects
            .iter()
            .map(|one| wire::ApprovalObject {
                role: one.role.clone(),
                pointer: one.pointer.clone(),
                collection: one.collection.clone(),
                value_json: one.value.clone(),
                origin: one.origin.clone(),
                currency: one.currency.clone(),
            })
            .collect(),
        reasons: approval
            .grounds
            .iter()
            .map(|one| wire::ApprovalReason {
                kind: one.kind.clone(),
                policy_id: one.name.clone(),
                reason: one.reason.clone(),
                place: one.place.clone(),
            })
            .collect(),
        labels: approval.labels.clone(),
        earlier_values: approval.earlier_values.clone(),
        last_approved: approval.last_approved.as_ref().map(|last| wire::ApprovalCall {
            arguments_json: last.arguments.clone().into_bytes(),
            approved_at: Some(timestamp(last.at)),
            approved_by: last.by.clone(),
        }),
        answers: approval
            .answers
            .iter()
            .map(|one| wire::ApprovalAnswer {
                queue: one.queue.clone(),
                status: if one.approved {
                    wire::ApprovalStatus::Approved as i32
                } else {
                    wire::ApprovalStatus::Rejected as i32
                },
                person: one.person.clone(),
                method: one.method.clone(),
                answered_at: Some(timestamp(one.at)),
                card_digest: bytes_of(&one.card_digest),
                comment: one.comment.clone(),
                endorsed: one.endorses,
            })
            .collect(),
        waits_for: match status {
            ApprovalStatus::Open => approval.waits_for().into_iter().map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        cannot_be_shown: approval.cannot_be_shown.clone(),
        reject_reason: rejection.map(|one| one.reject_reason.clone()).unwrap_or_default(),
        reject_text: rejection.map(|one| one.reject_text.clone()).unwrap_or_default(),
        reject_reasons: rules
            .reject_reasons
            .iter()
            .map(|(name, text)| (name.clone(), text.clone()))
            .collect(),
        ignored: approval
            .ignored
            .iter()
            .map(|one| wire::ApprovalIgnored { place: one.place.clone(), value: one.value.clone() })
            .collect(),
        answerable: false,
        needs_passkey: approval.needs_passkey,
        endorses: approval.endorses.as_ref().map(|offer| wire::ApprovalEndorsement {
            operations: offer.operations.clone(),
            values: approval
                .unnamed
                .iter()
                .map(|one| wire::ApprovalValue {
                    role: one.role.clone(),
                    collection: one.collection.clone(),
                    value: one.value.clone(),
                })
                .collect(),
            uses: offer.uses,
            within_seconds: u32::try_from(offer.within_ms.div_euclid(1_000)).unwrap_or_default(),
            until: offer.until.map(timestamp),
            max_tier: tier_of(approval.tier) as i32,
            labels: approval.labels.clone(),
        }),
    }
}

/// Returns the approval as the agent of its call sees it.
pub(super) fn for_agent(approval: &Approval, now: Time) -> wire::Approval {
    let rejection = approval.rejection();
    wire::Approval {
        id: approval.approval_id(),
        kinds: approval.kinds.clone(),
        status: status_of(approval.status_at(now)) as i32,
        expires_at: Some(timestamp(approval.ends_at())),
        reject_reason: rejection.map(|one| one.reject_reason.clone()).unwrap_or_default(),
        reject_text: rejection.map(|one| one.reject_text.clone()).unwrap_or_default(),
        task: if approval.in_task { approval.task.clone() } else { String::new() },
        ..wire::Approval::default()
    }
}

/// Returns the status of a filter. Default: open approvals.
pub(super) const fn filter_of(status: wire::ApprovalStatus) -> ApprovalStatus {
    match status {
        wire::ApprovalStatus::Unspecified | wire::ApprovalStatus::Pending => ApprovalStatus::Open,
        wire::ApprovalStatus::Approved => ApprovalStatus::Approved,
        wire::ApprovalStatus::Rejected => ApprovalStatus::Rejected,
        wire::ApprovalStatus::Expired => ApprovalStatus::Expired,
        wire::ApprovalStatus::Consumed => ApprovalStatus::Consumed,
    }
}

const fn status_of(status: ApprovalStatus) -> wire::ApprovalStatus {
    match status {
        ApprovalStatus::Open => wire::ApprovalStatus::Pending,
        ApprovalStatus::Approved => wire::ApprovalStatus::Approved,
        ApprovalStatus::Rejected => wire::ApprovalStatus::Rejected,
        ApprovalStatus::Expired => wire::ApprovalStatus::Expired,
        ApprovalStatus::Consumed => wire::ApprovalStatus::Consumed,
    }
}

const fn tier_of(tier: authz_kernel::model::Tier) -> wire::Tier {
    use authz_kernel::model::Tier;
    match tier {
        Tier::Low => wire::Tier::Low,
        Tier::Standard => wire::Tier::Standard,
        Tier::High => wire::Tier::High,
        Tier::Critical => wire::Tier::Critical,
    }
}

fn name_of_subject(subject: &TaskSubject) -> String {
    crate::judgement::name_of(&subject.principal()).into_owned()
}

/// Returns the bytes of lower-case hex, or no bytes if the text is not hex.
pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.unwrap_or_default();
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| pair.iter().fold(0_u8, |byte, digit| (byte << 4) | digit)).collect()
}
