//! Dead letters that the brokers refuse for another reason than their size. No event may be passed without its letter, so
//! they are sent again: one of them now and then, and all when it lands.

use std::collections::VecDeque;
use std::time::Duration;

use crate::librdkafka::Deadline;
use crate::sink::Token;

use super::revoked::RevokedRows;

/// How long they are left alone.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct RejectedDeadLetters {
    waiting: VecDeque<Token>,
    /// On its way, to see whether the topic takes it now.
    probe: Option<Token>,
    /// Not before.
    pause: Option<Deadline>,
}

impl RejectedDeadLetters {
    /// This one is refused. True: people should know, it is the first or the one that was tried.
    pub(super) fn add(&mut self, token: Token) -> bool {
        let was_probe = self.probe.take_if(|probe| *probe == token).is_some();
        let first = self.waiting.is_empty() && self.probe.is_none();
        self.waiting.push_back(token);
        if was_probe || first {
            self.pause = Some(Deadline::after(PAUSE));
        }
        was_probe || first
    }

    /// The one to try now, if it is time.
    pub(super) fn probe(&mut self) -> Option<Token> {
        if self.probe.is_some() || self.pause.is_some_and(|pause| !pause.is_over()) {
            return None;
        }
        self.probe = self.waiting.pop_front();
        self.probe
    }

    /// This letter landed. If it was the one that was tried, the others may go: gives them.
    pub(super) fn acknowledged(&mut self, token: Token) -> VecDeque<Token> {
        match self.probe.take_if(|probe| *probe == token) {
            Some(_) => std::mem::take(&mut self.waiting),
            None => VecDeque::new(),
        }
    }

    /// Takes out what is of these rows.
    pub(super) fn forget(&mut self, revoked: &RevokedRows) {
        let is_cut = |token: &Token| revoked.contains(token.call, token.row);
        self.waiting.retain(|token| !is_cut(token));
        self.probe.take_if(|probe| is_cut(probe));
    }
}

#[cfg(test)]
mod tests {
    use keylane_core::CallId;

    use super::*;

    fn token(row: u32) -> Token {
        let call = CallId { slot: 0, generation: 1 };
        Token { handler: 0, call, row, lane: 0, output: 0, letter: true }
    }

    #[test]
    fn one_is_tried_and_the_others_follow_when_it_lands() {
        let mut refused = RejectedDeadLetters::default();
        assert_eq!([0, 1, 2].map(|row| refused.add(token(row))), [true, false, false]);
        assert_eq!(refused.probe(), None, "there is a pause");
        refused.pause = None;
        assert_eq!((refused.probe(), refused.probe()), (Some(token(0)), None), "one at a time");
        assert!(refused.add(token(0)), "still refused");
        refused.pause = None;
        assert_eq!(refused.probe(), Some(token(1)));
        assert_eq!(refused.acknowledged(token(9)), [], "another one");
        assert_eq!(refused.acknowledged(token(1)), [token(2), token(0)]);
        assert_eq!(refused.probe(), None);
    }

    #[test]
    fn what_is_cut_is_not_tried() {
        let mut refused = RejectedDeadLetters::default();
        assert_eq!([0, 1, 2].map(|row| refused.add(token(row))), [true, false, false]);
        refused.pause = None;
        assert_eq!(refused.probe(), Some(token(0)));
        let mut revoked = RevokedRows::default();
        revoked.add(token(0).call, 0..2);
        refused.forget(&revoked);
        assert_eq!(refused.probe(), Some(token(2)));
    }
}
