//! The words of the scripts for locks, records, queues and sessions.
//!
//! ```text
//!   lock vm n1#1 req=5 [since=r8] wait | try      unlock vm n1#1 r9        settle req=5 [since=r8] [vm]
//!   write req=6 if version k none & version k r3 & value k "x" & holds vm r9 & over n1#1 & active n2#1
//!               do put k "v" [with n1#1] & delete k & push vm "go" & ack vm q1 r9
//!   take vm r9 req=7        process-bound n3#1        inherit n3#2 n3#1
//!   open req=8 ttl=5000 delay=1000 "label"     close s9
//!   run-out s9 under a9 after 6000             lift vm r9 under a9 after 6000
//! ```

use std::time::Duration;

use quorate_membership::*;

use super::{Words, parse};

/// Reads what follows `verb`; `None` if it is no verb of these.
pub(super) fn command(verb: &str, words: &mut Words<'_>) -> Option<Result<Command, String>> {
    Some(match verb {
        "lock" => lock(words),
        "unlock" => unlock(words),
        "settle" => settle(words),
        "write" => write(words),
        "take" => take(words),
        "process-bound" => words.id().map(|who| Command::DeclareProcessBound { who }),
        "inherit" => inherit(words),
        "open" => open(words),
        "close" => words.id().map(|session| Command::CloseSession { session }),
        "run-out" => run_out(words),
        "lift" => lift(words),
        _ => return None,
    })
}

fn lock(words: &mut Words<'_>) -> Result<Command, String> {
    let (name, holder, request) = (words.text()?, holder(&words.next()?)?, request(words)?);
    let wait = match words.next()?.as_str() {
        "wait" => true,
        "try" => false,
        other => return Err(format!("`{other}` where `wait` or `try` belongs")),
    };
    Ok(Command::Lock { request, name, holder, wait })
}

fn unlock(words: &mut Words<'_>) -> Result<Command, String> {
    Ok(Command::Unlock { name: words.text()?, holder: holder(&words.next()?)?, token: words.id()? })
}

fn settle(words: &mut Words<'_>) -> Result<Command, String> {
    let request = request(words)?;
    let lock = if words.rest.is_empty() { None } else { Some(words.text()?) };
    Ok(Command::Settle { request, lock })
}

fn take(words: &mut Words<'_>) -> Result<Command, String> {
    Ok(Command::Take { queue: words.text()?, token: words.id()?, request: request(words)? })
}

fn inherit(words: &mut Words<'_>) -> Result<Command, String> {
    Ok(Command::Inherit { who: words.id()?, former: words.id()? })
}

fn open(words: &mut Words<'_>) -> Result<Command, String> {
    let (request, ttl, lock_delay) = (request(words)?, words.millis("ttl=")?, words.millis("delay=")?);
    let label = words.text()?;
    // Whose certificate opened it, if it says so.
    let owner = if words.rest.is_empty() { None } else { Some(words.text()?) };
    Ok(Command::OpenSession { request, session: Session { ttl, lock_delay, label, owner } })
}

fn run_out(words: &mut Words<'_>) -> Result<Command, String> {
    let (session, under) = (words.id()?, words.after("under")?.id()?);
    let waited = Duration::from_millis(words.after("after")?.number()?);
    Ok(Command::ExpireSession { session, under, waited })
}

fn lift(words: &mut Words<'_>) -> Result<Command, String> {
    let (name, token, under) = (words.text()?, words.id()?, words.after("under")?.id()?);
    let waited = Duration::from_millis(words.after("after")?.number()?);
    Ok(Command::LiftDelay { name, token, under, waited })
}

/// `req=5`, and `since=r8` where it is not the beginning.
fn request(words: &mut Words<'_>) -> Result<Request, String> {
    let word = words.next()?;
    let nonce = Nonce::new(parse(word.strip_prefix("req=").ok_or("a request needs req=")?)?);
    let since = match words.rest.strip_prefix("since=") {
        None => Revision::default(),
        Some(_) => parse(words.next()?.trim_start_matches("since="))?,
    };
    Ok(Request { nonce, since })
}

fn holder(word: &str) -> Result<Holder, String> {
    match word.starts_with('s') {
        true => Ok(Holder::Session(parse(word)?)),
        false => Ok(Holder::Life(parse(word)?)),
    }
}

fn write(words: &mut Words<'_>) -> Result<Command, String> {
    let (request, mut checks, mut changes) = (request(words)?, vec![], vec![]);
    let mut changing = false;
    while !words.rest.is_empty() {
        match words.next()?.as_str() {
            "if" | "&" => {}
            "do" => changing = true,
            "version" => {
                let (key, word) = (words.text()?, words.next()?);
                let version = if word == "none" { None } else { Some(parse(&word)?) };
                checks.push(Check::Version { key, version });
            }
            "value" => checks.push(Check::Value { key: words.text()?, value: words.value()? }),
            "holds" => checks.push(Check::Holds { lock: words.text()?, token: words.id()? }),
            "over" => checks.push(Check::Over { who: words.id()? }),
            "active" => checks.push(Check::Active { who: words.id()? }),
            "put" if changing => {
                let (key, value) = (words.text()?, words.value()?);
                let bound = words.rest.starts_with("with ").then(|| words.next().and_then(|_| holder(&words.next()?)));
                changes.push(Change::Put { key, value, bound: bound.transpose()? });
            }
            "delete" if changing => changes.push(Change::Delete { key: words.text()? }),
            "push" if changing => changes.push(Change::Push { queue: words.text()?, value: words.value()? }),
            "ack" if changing => {
                let (queue, item, token) = (words.text()?, words.id()?, words.id()?);
                changes.push(Change::Acknowledge { queue, item, token });
            }
            other => return Err(format!("`{other}` is no part of a write")),
        }
    }
    Ok(Command::Write { request, checks, changes })
}

impl Words<'_> {
    fn millis(&mut self, name: &str) -> Result<Duration, String> {
        let word = self.next()?;
        let value = word.strip_prefix(name).ok_or_else(|| format!("`{word}` where `{name}` belongs"))?;
        Ok(Duration::from_millis(parse(value)?))
    }

    fn value(&mut self) -> Result<Value, String> {
        Ok(self.next()?.as_str().into())
    }
}
