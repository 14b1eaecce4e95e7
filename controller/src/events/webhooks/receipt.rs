//! How whoever brought events learns that every receiver has them, or that they were given up.

use std::convert::Infallible;

use tokio::sync::mpsc;

/// Waits for the end of all its tokens.
#[derive(Debug)]
pub(crate) struct Receipt {
    ended: mpsc::Receiver<Infallible>,
    token: Option<Token>,
}

/// Held as long as something has to be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Token(
    #[expect(dead_code, reason = "it is held, and says nothing")] mpsc::Sender<Infallible>,
);

impl Receipt {
    pub(crate) fn new() -> Self {
        let (token, ended) = mpsc::channel(1);
        Self {
            ended,
            token: Some(Token(token)),
        }
    }

    /// A token.
    pub(crate) fn token(&self) -> Token {
        self.token
            .clone()
            .expect("it is there until it is waited for")
    }

    /// Waits until every token has gone. May be asked again where it was not waited for to the end.
    pub(crate) async fn settled(&mut self) {
        self.token = None;
        // Nothing can be sent.
        let _ = self.ended.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_receipt_waits_for_all_of_its_tokens() {
        let mut receipt = Receipt::new();
        let (one, other) = (receipt.token(), receipt.token());
        drop(one);
        let early = tokio::time::timeout(Duration::from_secs(1), receipt.settled()).await;
        assert!(early.is_err());
        drop(other);
        receipt.settled().await;
    }
}
