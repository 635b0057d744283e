//! One answer for all who ask for it at the same time: who asks while one is made waits for the next one,
//! and shares it with everybody who asked meanwhile.
//!
//! So nobody gets figures from before the question, and however many ask, two answers are the most that
//! anybody waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;

/// What came of making an answer: it, or what went wrong.
pub(super) type Answer = Result<Bytes, String>;

/// An answer in one form.
#[derive(Default)]
pub(super) struct Shared {
    /// Whose turn it is to make one.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Answers begun so far.
    n_begun: u64,
    n_askers: usize,
    /// The last one and its number; gone with the last who asked.
    last: Option<(u64, Answer)>,
}

/// Somebody who asks.
struct Asker<'a> {
    shared: &'a Shared,
    /// Answers begun before.
    n_begun: u64,
}

impl Shared {
    /// An answer that was begun after this call, by `make` or by somebody else's.
    pub(super) async fn get<T: Into<Bytes>>(&self, make: impl AsyncFnOnce() -> anyhow::Result<T>) -> Answer {
        let asker = self.arrive();
        let _turn = self.turn.lock().await;
        if let Some(answer) = asker.shared_answer() {
            return answer;
        }
        let number = self.begin();
        let answer = make().await.map(Into::into).map_err(|error| format!("{error:#}\n"));
        self.state().last = Some((number, answer.clone()));
        answer
    }

    fn arrive(&self) -> Asker<'_> {
        let mut state = self.state();
        state.n_askers += 1;
        Asker { shared: self, n_begun: state.n_begun }
    }

    fn begin(&self) -> u64 {
        let mut state = self.state();
        state.n_begun += 1;
        state.n_begun
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker<'_> {
    fn shared_answer(&self) -> Option<Answer> {
        let state = self.shared.state();
        let (number, answer) = state.last.as_ref()?;
        (*number > self.n_begun).then(|| answer.clone())
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.n_askers -= 1;
        if state.n_askers == 0 {
            state.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use tokio::time::sleep;

    use super::*;

    /// Answers with its number, after a while.
    async fn ask(shared: Arc<Shared>, n_made: Arc<AtomicU64>) -> Answer {
        let make = async || {
            let number = n_made.fetch_add(1, Ordering::Relaxed) + 1;
            sleep(Duration::from_millis(50)).await;
            if number == 4 { anyhow::bail!("the fourth one fails") } else { Ok(number.to_string()) }
        };
        shared.get(make).await
    }

    #[tokio::test]
    async fn who_asks_while_one_is_made_shares_the_next() {
        let (shared, n_made) = (Arc::new(Shared::default()), Arc::new(AtomicU64::new(0)));
        let spawn = || tokio::spawn(ask(Arc::clone(&shared), Arc::clone(&n_made)));
        let first = spawn();
        sleep(Duration::from_millis(10)).await;
        let others: Vec<_> = (0..50).map(|_| spawn()).collect();
        assert_eq!(first.await.unwrap().unwrap(), "1");
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), "2");
        }
        assert!(shared.state().last.is_none(), "an answer is kept that nobody waits for");
        assert_eq!(spawn().await.unwrap().unwrap(), "3");
        assert_eq!(spawn().await.unwrap().unwrap_err(), "the fourth one fails\n");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_turn_to_the_next() {
        let (shared, n_made) = (Arc::new(Shared::default()), Arc::new(AtomicU64::new(0)));
        let spawn = || tokio::spawn(ask(Arc::clone(&shared), Arc::clone(&n_made)));
        let first = spawn();
        sleep(Duration::from_millis(10)).await;
        let second = spawn();
        sleep(Duration::from_millis(10)).await;
        first.abort();
        assert_eq!(second.await.unwrap().unwrap(), "2");
        assert!(shared.state().last.is_none());
    }
}
