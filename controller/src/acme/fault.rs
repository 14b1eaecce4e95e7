//! What goes wrong with an order, what it is counted as, and what is of no more use after it.

use instant_acme::{Error, Problem};

use crate::error::{FleetError, chain};

/// Why no certificate came.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    /// For the operator.
    pub(super) error: String,
    /// Whether another order has to be begun.
    pub(super) ends_order: bool,
    /// Whether the authority does not know the account.
    pub(super) ends_account: bool,
}

/// The kinds of faults, as metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The authority wants fewer orders.
    RateLimited,
    /// It refuses the order.
    Refused,
    /// It did not find the answer that it looked for.
    Challenge,
    /// It cannot be reached, or does not speak ACME.
    Unreachable,
    /// It did not come to an end.
    Late,
    /// What it gave is no good.
    Unusable,
    /// The store does not answer, or another controller leads: no fault of the order.
    Store,
}

impl Reason {
    /// The name in API, events and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::Challenge => "challenge",
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Unusable => "unusable",
            Self::Store => "store",
        }
    }
}

impl Fault {
    fn new(reason: Reason, error: impl Into<String>) -> Self {
        Self {
            reason,
            error: error.into(),
            ends_order: true,
            ends_account: false,
        }
    }

    /// The authority did not find the answer.
    pub(super) fn challenge(error: impl Into<String>) -> Self {
        Self::new(Reason::Challenge, error)
    }

    /// What came of the order cannot be used.
    pub(super) fn unusable(error: impl Into<String>) -> Self {
        Self::new(Reason::Unusable, error)
    }

    /// What the authority says where an account orders, or asks for its order: `unauthorized` is about no challenge there, but about
    /// the account, which somebody has deactivated (RFC 8555 §7.3.6). Another one is needed.
    pub(super) fn of_account(error: Error) -> Self {
        let is_refused =
            matches!(&error, Error::Api(problem) if kind_of(problem) == "unauthorized");
        let fault = Self::from(error);
        if !is_refused {
            return fault;
        }
        Self {
            reason: Reason::Refused,
            ends_account: true,
            ..fault
        }
    }

    /// The order took too long; it may come to an end yet.
    pub(super) fn late() -> Self {
        Self {
            ends_order: false,
            ..Self::new(
                Reason::Late,
                "the certificate authority did not come to an end in time",
            )
        }
    }
}

impl From<FleetError> for Fault {
    fn from(error: FleetError) -> Self {
        Self {
            ends_order: false,
            ..Self::new(Reason::Store, chain(&error))
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Api(problem) = &error {
            return of_problem(problem, error.to_string());
        }
        if let Error::Timeout(_) = &error {
            return Self::late();
        }
        // The authority may be there again soon, and the order with it.
        Self {
            ends_order: false,
            ..Self::new(Reason::Unreachable, chain(&error))
        }
    }
}

/// The last part of the problem's URN.
fn kind_of(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or("");
    kind.rsplit(':').next().unwrap_or("")
}

fn of_problem(problem: &Problem, error: String) -> Fault {
    let kind = kind_of(problem);
    let reason = match kind {
        "rateLimited" => Reason::RateLimited,
        "caa" | "connection" | "dns" | "incorrectResponse" | "tls" | "unauthorized" => {
            Reason::Challenge
        }
        "serverInternal" => Reason::Unreachable,
        _ => Reason::Refused,
    };
    Fault {
        ends_account: kind == "accountDoesNotExist",
        ends_order: !matches!(kind, "rateLimited" | "serverInternal"),
        ..Fault::new(reason, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str) -> Error {
        let json = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"why"}}"#);
        Error::Api(serde_json::from_str(&json).unwrap())
    }

    fn of(kind: &str) -> Fault {
        problem(kind).into()
    }

    #[test]
    fn an_account_that_was_deactivated_is_of_no_more_use() {
        let kept = |fault: Fault| (fault.reason, fault.ends_order, fault.ends_account);
        let ordering = |kind| kept(Fault::of_account(problem(kind)));
        assert_eq!(ordering("unauthorized"), (Reason::Refused, true, true));
        assert_eq!(ordering("rateLimited"), kept(of("rateLimited")));
        // That of a challenge says that the answer was another one.
        assert_eq!(kept(of("unauthorized")), (Reason::Challenge, true, false));
    }

    #[test]
    fn an_authority_says_what_is_wrong_and_what_is_of_no_more_use() {
        let kept = |kind| {
            let fault = of(kind);
            (fault.reason, fault.ends_order, fault.ends_account)
        };
        assert_eq!(kept("rateLimited"), (Reason::RateLimited, false, false));
        assert_eq!(kept("connection"), (Reason::Challenge, true, false));
        assert_eq!(kept("serverInternal"), (Reason::Unreachable, false, false));
        assert_eq!(kept("accountDoesNotExist"), (Reason::Refused, true, true));
        assert_eq!(kept("rejectedIdentifier"), (Reason::Refused, true, false));
        assert!(of("dns").error.contains("why"));
        let late = Fault::from(Error::Timeout(None));
        assert_eq!((late.reason, late.ends_order), (Reason::Late, false));
    }
}
