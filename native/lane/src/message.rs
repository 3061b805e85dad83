//! Public messages for agents: one fixed text for each (`public_code`, `next_action`, `retry`).

use authz_kernel::reason::{NextAction, PublicCode, ReasonCode, Retry};

/// Text of a reason code's row. It holds nothing of policy, other principals or input.
#[must_use]
pub fn public_message(reason: ReasonCode) -> String {
    let row = reason.row();
    let parts = [what(row.public_code), act(row.next_action), again(row.public_code, row.retry)];
    let mut text = String::with_capacity(160);
    for part in parts {
        if !text.is_empty() && !part.is_empty() {
            text.push(' ');
        }
        text.push_str(part);
    }
    text
}

/// Every reason code with its row and its public text, as a JSON array.
#[must_use]
pub fn reason_table() -> Vec<u8> {
    let rows: serde_json::Value = ReasonCode::ALL
        .into_iter()
        .map(|reason| {
            let row = reason.row();
            serde_json::json!({
                "name": reason.as_str(),
                "number": reason.number(),
                "public_code": row.public_code.as_str(),
                "next_action": row.next_action.as_str(),
                "retry": row.retry.as_str(),
                "grpc_code": row.grpc_code,
                "http_status": row.http_status,
                "title": row.title,
                "fix": row.fix,
                "public_message": public_message(reason),
            })
        })
        .collect();
    rows.to_string().into_bytes()
}

const fn what(code: PublicCode) -> &'static str {
    match code {
        PublicCode::Permit => "The operation may be performed.",
        PublicCode::StepUp => "Not yet: something must be shown first.",
        PublicCode::Denied => "The operation may not be performed.",
        PublicCode::Unauthenticated => "The request does not prove who is calling.",
        PublicCode::Invalid => "The request cannot be judged as it stands.",
        PublicCode::Unavailable => {
            "No decision could be made, so the operation may not be performed."
        }
    }
}

const fn act(action: NextAction) -> &'static str {
    match action {
        NextAction::None => "",
        NextAction::StartTask => "Start a task that covers it.",
        NextAction::Narrow => "Ask for less, or fix the request.",
        NextAction::Confirm => "The user must confirm it.",
        NextAction::Approve => "Another person must approve it.",
        NextAction::Reauth => "Authenticate again.",
        NextAction::ContactOwner => "Ask the owner of the system.",
    }
}

const fn again(code: PublicCode, retry: Retry) -> &'static str {
    match (code, retry) {
        (PublicCode::Permit, _) => "",
        (_, Retry::Never) => "Do not send the same request again.",
        (_, Retry::Later) => "The same request may pass later.",
        (_, Retry::AfterChange) => "The request may pass once that has changed.",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Two triples never share a text, and one triple never has two.
    #[test]
    fn one_text_a_triple() {
        let mut texts = BTreeMap::new();
        for reason in ReasonCode::ALL {
            let row = reason.row();
            let triple = (row.public_code, row.next_action, row.retry);
            let known = texts.entry(public_message(reason)).or_insert(triple);
            assert_eq!(*known, triple, "{reason:?}");
        }
    }
}
