//! HOT for plugins that ask: a question costs a slot of a slab and a post.
//! Requests that wait for answers of the control plane.
//! Owns: the slots in which answers arrive. Never: waits longer than the asker's patience.
//! Always: a slot is free again when its request goes on, or is given up for whatever reason; an answer that comes later
//! reaches nobody.

use std::cell::Cell;
use std::cell::RefCell;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::limits;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Asking;
use crate::proxy::core::Core;
use crate::state::mailbox::Asked;
use crate::state::mailbox::Ticket;

/// The slots of one core.
#[derive(Default)]
pub struct Asks {
    slots: RefCell<Slab<Slot>>,
    serial: Cell<u64>,
}

struct Slot {
    serial: u64,
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// A slot that is freed when this is dropped.
struct Waiting<'a> {
    asks: &'a Asks,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.asks.slots.borrow_mut().try_remove(self.ticket.place as usize);
    }
}

impl Asks {
    /// A slot to wait in; `None`: too many wait.
    fn open(&self) -> Option<Waiting<'_>> {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= limits::QUESTIONS_WAITING_MAX {
            return None;
        }
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        let place = slots.insert(Slot { serial, answer: None, waker: None }) as u32;
        Some(Waiting { asks: self, ticket: Ticket { place, serial } })
    }

    /// Hands an answer to who waits for it, if anybody still does.
    pub fn answered(&self, ticket: Ticket, answer: Answer) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(ticket.place as usize).filter(|slot| slot.serial == ticket.serial) else {
            return;
        };
        slot.answer = Some(answer);
        if let Some(waker) = slot.waker.take() {
            drop(slots);
            waker.wake();
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Core {
    /// Puts a question to the control plane and waits for the answer, at most as long as the asker's patience.
    pub async fn ask(&self, asking: Asking) -> Answer {
        self.counters.questions.add();
        let answer = self.put(asking).await;
        if matches!(answer, Answer::Failed(_)) {
            self.counters.questions_unanswered.add();
        }
        answer
    }

    async fn put(&self, asking: Asking) -> Answer {
        let Asking { question, patience_ms } = asking;
        let Some(waiting) = self.asks.open() else {
            return Answer::Failed("too many requests wait for answers".into());
        };
        let asked = Asked { core: self.index, ticket: Some(waiting.ticket), question, patience_ms };
        if !(self.outbox.ask)(asked) {
            return Answer::Failed("too many questions wait to be answered".into());
        }
        let arrived = std::future::poll_fn(|cx| {
            let mut slots = self.asks.slots.borrow_mut();
            let Some(slot) = slots.get_mut(waiting.ticket.place as usize) else { return Poll::Pending };
            match slot.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    slot.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        // Nothing but a wait is given up here: no operation of the ring is behind it.
        let answer = monoio::time::timeout(Duration::from_millis(patience_ms), arrived).await;
        answer.unwrap_or_else(|_| Answer::Failed("no answer in time".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reaches_who_asked_and_nobody_after_it() {
        let asks = Asks::default();
        let first = asks.open().unwrap();
        let ticket = first.ticket;
        asks.answered(ticket, Answer::Failed("a".into()));
        let answer = asks.slots.borrow_mut()[ticket.place as usize].answer.take();
        assert_eq!(answer, Some(Answer::Failed("a".into())));
        drop(first);
        assert!(asks.is_empty());
        let second = asks.open().unwrap();
        assert_eq!(second.ticket.place, ticket.place);
        asks.answered(ticket, Answer::Failed("late".into()));
        assert_eq!(asks.slots.borrow()[ticket.place as usize].answer, None);
    }

    #[test]
    fn the_number_of_those_who_wait_is_bounded() {
        let asks = Asks::default();
        let held: Vec<_> = (0..limits::QUESTIONS_WAITING_MAX).map(|_| asks.open().unwrap()).collect();
        assert!(asks.open().is_none());
        drop(held);
        assert!(asks.is_empty() && asks.open().is_some());
    }
}
