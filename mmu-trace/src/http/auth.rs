//! Basic authentication (RFC 7617) with bcrypt hashes.
//!
//! One password is computed at a time, on a thread where it may take its time, so a guesser does not slow
//! down what is measured, and few wait for their turn, so guessers do not fill all places. Answers are remembered, in a form that does not tell the password. An unknown
//! user costs as much as a known one.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::{error::Unspecified, hmac, rand::SystemRandom};
use tokio::sync::Semaphore;

/// Wrong passwords that are remembered: a scraper that has one costs nothing after its first try.
const MAX_REFUSED: usize = 100;
/// Passwords that wait for their turn, the one that is computed included: some seconds of waiting.
const MAX_WAITING: usize = 16;
/// What an unknown user's password is compared with, after `$2b$` and a cost: no password gives it.
const NOBODY: &str = "$C7K572vXT1R9p8pOQNHKl.K/.tzm9YqjF98M8Yt1H4ttk1FD.E7G6";
/// The cost where there is no user to take it from.
const DEFAULT_COST: u32 = 10;

/// A question and its answer are remembered by this.
type Fingerprint = [u8; 32];

/// Checks passwords and remembers what came of it.
pub(super) struct Authenticator {
    key: hmac::Key,
    turn: Semaphore,
    /// Places to wait for it.
    queue: Semaphore,
    known: Mutex<Known>,
}

/// Bounded: one accepted password for each user, and the newest refused ones.
#[derive(Default)]
struct Known {
    accepted: HashMap<String, Fingerprint>,
    refused: VecDeque<Fingerprint>,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    Refused,
    /// Too many others are asking.
    Busy,
}

/// What a client says it is.
struct Credentials {
    user: String,
    password: Vec<u8>,
}

impl Authenticator {
    /// One that remembers nothing yet.
    pub(super) fn new() -> Result<Self, Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self { key, turn: Semaphore::new(1), queue: Semaphore::new(MAX_WAITING), known: Mutex::default() })
    }

    /// Whether the request with these headers comes from one of `users`.
    pub(super) async fn admits(&self, headers: &HeaderMap, users: &BTreeMap<String, String>) -> Admission {
        let Some(credentials) = Credentials::from_headers(headers) else { return Admission::Refused };
        let hash = users.get(&credentials.user);
        let fingerprint = self.fingerprint(&credentials, hash);
        if let Some(answer) = self.remembered(&credentials.user, fingerprint) {
            return answer.into();
        }
        let Ok(_place) = self.queue.try_acquire() else { return Admission::Busy };
        let Ok(_turn) = self.turn.acquire().await else { return Admission::Refused };
        // Somebody with the same password may have had the turn before.
        if let Some(answer) = self.remembered(&credentials.user, fingerprint) {
            return answer.into();
        }
        let is_known = hash.is_some();
        let hash = hash.cloned().unwrap_or_else(|| nobody(users));
        let Credentials { user, password } = credentials;
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(&password, &hash)).await;
        let answer = matches!(verified, Ok(Ok(true))) && is_known;
        self.remember(user, fingerprint, answer);
        answer.into()
    }

    fn fingerprint(&self, credentials: &Credentials, hash: Option<&String>) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        for part in
            [credentials.user.as_bytes(), hash.map_or(&[], |hash| hash.as_bytes()), &credentials.password]
        {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    fn remembered(&self, user: &str, fingerprint: Fingerprint) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.accepted.get(user) == Some(&fingerprint) {
            return Some(true);
        }
        known.refused.contains(&fingerprint).then_some(false)
    }

    fn remember(&self, user: String, fingerprint: Fingerprint, answer: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if answer {
            known.accepted.insert(user, fingerprint);
            return;
        }
        known.refused.push_back(fingerprint);
        if known.refused.len() > MAX_REFUSED {
            known.refused.pop_front();
        }
    }
}

impl From<bool> for Admission {
    fn from(is_admitted: bool) -> Self {
        if is_admitted { Self::Admitted } else { Self::Refused }
    }
}

impl Credentials {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(token.trim()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        Some(Self { user, password: decoded[colon + 1..].to_vec() })
    }
}

/// A hash that takes as long as the slowest of `users`.
fn nobody(users: &BTreeMap<String, String>) -> String {
    let costs =
        users.values().filter_map(|hash| hash.parse::<HashParts>().ok()).map(|parts| parts.get_cost());
    format!("$2b${:02}{NOBODY}", costs.max().unwrap_or(DEFAULT_COST))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn basic(pair: &str) -> HeaderMap {
        headers(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash_of_the_same_cost() {
        let users = BTreeMap::from([("a".to_owned(), bcrypt::hash("x", 5).unwrap())]);
        assert_eq!(nobody(&users).parse::<HashParts>().unwrap().get_cost(), 5);
        assert!(!bcrypt::verify("", &nobody(&users)).unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_takes_as_long_as_a_known_one() {
        let authenticator = Authenticator::new().unwrap();
        let users = BTreeMap::from([("a".to_owned(), bcrypt::hash("x", 8).unwrap())]);
        let took = async |pair: &str| {
            let start = std::time::Instant::now();
            assert_eq!(authenticator.admits(&basic(pair), &users).await, Admission::Refused);
            start.elapsed()
        };
        let (known, unknown) = (took("a:wrong").await, took("b:wrong").await);
        assert!(unknown > known / 4, "{known:?} {unknown:?}");
        // Neither is computed again.
        assert!(took("a:wrong").await < known / 4 && took("b:wrong").await < known / 4);
    }

    #[tokio::test]
    async fn only_a_user_with_the_right_password_is_admitted() {
        let authenticator = Authenticator::new().unwrap();
        let mut users = BTreeMap::from([("a".to_owned(), bcrypt::hash("x:y", 4).unwrap())]);
        for _ in 0..2 {
            assert_eq!(authenticator.admits(&basic("a:x:y"), &users).await, Admission::Admitted);
            for wrong in ["a:x", "b:x:y", "a", ":", "", "A:x:y"] {
                assert_eq!(authenticator.admits(&basic(wrong), &users).await, Admission::Refused, "{wrong}");
            }
        }
        for wrong in ["Bearer YTp4Onk=", "Basic", "Basic ?", "Basic YTp4Onk"] {
            assert_eq!(authenticator.admits(&headers(wrong), &users).await, Admission::Refused, "{wrong}");
        }
        users.insert("a".to_owned(), bcrypt::hash("new", 4).unwrap());
        assert_eq!(authenticator.admits(&basic("a:x:y"), &users).await, Admission::Refused);
        assert_eq!(authenticator.admits(&basic("a:new"), &users).await, Admission::Admitted);
    }

    #[tokio::test]
    async fn while_many_guess_who_is_known_is_admitted_and_the_rest_sent_away() {
        let authenticator = std::sync::Arc::new(Authenticator::new().unwrap());
        let users = BTreeMap::from([("a".to_owned(), bcrypt::hash("x", 8).unwrap())]);
        assert_eq!(authenticator.admits(&basic("a:x"), &users).await, Admission::Admitted);
        let guess = |n: usize| {
            let (authenticator, users) = (std::sync::Arc::clone(&authenticator), users.clone());
            tokio::spawn(async move { authenticator.admits(&basic(&format!("a:{n}")), &users).await })
        };
        let guesses: Vec<_> = (0..3 * MAX_WAITING).map(guess).collect();
        tokio::task::yield_now().await;
        assert_eq!(authenticator.admits(&basic("a:x"), &users).await, Admission::Admitted);
        let mut n_busy = 0;
        for guess in guesses {
            n_busy += usize::from(guess.await.unwrap() == Admission::Busy);
        }
        assert_eq!(n_busy, 2 * MAX_WAITING);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let authenticator = Authenticator::new().unwrap();
        for n in 0..=MAX_REFUSED {
            authenticator.remember("a".to_owned(), [n as u8; 32], false);
        }
        authenticator.remember("a".to_owned(), [255; 32], true);
        assert_eq!(authenticator.remembered("a", [0; 32]), None);
        assert_eq!(authenticator.remembered("a", [1; 32]), Some(false));
        assert_eq!(authenticator.remembered("a", [255; 32]), Some(true));
        assert_eq!(authenticator.remembered("b", [255; 32]), None);
    }
}
