//! How people prove that they answer.

use serde::Deserialize;

/// Way in which a person proved to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerMethod {
    /// A login of the approvals page.
    Login,
    /// A passkey with user verification, over the answer.
    Passkey,
    /// The user of an administration socket.
    Socket,
}

impl AnswerMethod {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Passkey => "passkey",
            Self::Socket => "socket",
        }
    }
}
