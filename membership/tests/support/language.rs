//! The small language of the scripts: one command a line, in the printed forms of the ids.
//!
//! ```text
//!   found 7                                      order n3#1 silent 1500 | returned n3#2 | requested "why"
//!   configure n1 n2 -> n1 n2 n3 learners n4      … under a9 (else the current activation)
//!   join n3 voter disk=3/1 nonce=5 [at=a:1,b:2]  start f1 by n1 attempt 1
//!     [lease=3000 stop=deadman:250 drift=10000]  fail f1 attempt 1 "why"
//!   lead n1 nonce=1001                           expire n3#1 under a9 after 3400
//!   activate n3#1 | leave n3#1 | remove n3       confirm f1 n3#1 device by n1 attempt 1 "what was seen"
//!   role n3 learner | address n3 a:1 b:2         confirm f1 n3#1 operator "who" "how" | vouch n3#1 "who" "how"
//! ```
//!
//! Those about locks, records, queues and sessions are in `language_store.rs`.
//!
//! Texts are taken as a wire would bring them, unchecked: `""` and `"x"*5000` reach the rules as they stand.

#[path = "language_store.rs"]
mod store;

use std::str::FromStr;
use std::time::Duration;

use quorate_membership::*;
use serde::de::DeserializeOwned;
use serde::de::value::{Error, SeqDeserializer};

/// Three voters, founded, configured and at work.
pub(crate) const THREE: &str = "found 7
configure n1 n2 n3
join n1 voter disk=1/1 nonce=11
join n2 voter disk=2/1 nonce=21
join n3 voter disk=3/1 nonce=31
activate n1#1
activate n2#1
activate n3#1
lead n1 nonce=1001";

/// Reads one command.
pub(crate) fn command(line: &str) -> Result<Command, String> {
    let mut words = Words { rest: line.trim() };
    let verb = words.next()?;
    let command = match verb.as_str() {
        "found" => Command::Found { cluster: ClusterId::new(words.number()?.into()) },
        "configure" => configure(&mut words)?,
        "join" => join(&mut words)?,
        "activate" => Command::Activate { who: words.id()? },
        "order" => {
            let (target, cause) = (words.id()?, cause(&mut words)?);
            let under = if words.rest.is_empty() { None } else { Some(words.after("under")?.id()?) };
            Command::OrderFence { target, cause, under }
        }
        "lead" => {
            let (leader, word) = (words.id()?, words.next()?);
            let nonce = word.strip_prefix("nonce=").ok_or("a leader needs nonce=")?;
            Command::ActivateLeader { leader, nonce: Nonce::new(parse(nonce)?) }
        }
        "expire" => {
            let (target, under) = (words.id()?, words.after("under")?.id()?);
            let waited = Duration::from_millis(words.after("after")?.number()?);
            Command::Expire { target, under, waited }
        }
        "start" => {
            let (order, by) = (words.id()?, words.after("by")?.id()?);
            Command::StartFence { order, by, attempt: words.after("attempt")?.attempt()? }
        }
        "fail" => {
            let (order, attempt) = (words.id()?, words.after("attempt")?.attempt()?);
            Command::FailFence { order, attempt, reason: words.text()? }
        }
        "confirm" => {
            let (order, target) = (words.id()?, words.id()?);
            Command::ConfirmFence { order, target, confirmation: confirmation(&mut words)? }
        }
        "vouch" => {
            let (target, name, reason) = (words.id()?, words.text()?, words.text()?);
            Command::Vouch { target, name, reason, by: words.asker()? }
        }
        "leave" => Command::Leave { who: words.id()? },
        "role" => Command::SetRole { node: words.id()?, role: role(&words.next()?)?, by: words.asker()? },
        "address" => Command::SetAddresses { node: words.id()?, addresses: words.texts()?, by: None },
        "remove" => Command::Remove { node: words.id()?, by: words.asker()? },
        other => match store::command(other, &mut words) {
            Some(command) => command?,
            None => return Err(format!("`{other}` is no command")),
        },
    };
    if words.rest.is_empty() { Ok(command) } else { Err(format!("`{}` is left over in `{line}`", words.rest)) }
}

/// What a leader concludes is concluded under the current activation, unless the line says otherwise.
pub(crate) fn under_current(command: Command, state: &ClusterState) -> Command {
    match command {
        Command::OrderFence { target, cause, under: None } if !matches!(cause, Cause::Requested { .. }) => {
            Command::OrderFence { target, cause, under: state.leadership().map(|l| l.activation) }
        }
        other => other,
    }
}

fn configure(words: &mut Words<'_>) -> Result<Command, String> {
    let (mut sets, mut learners) = (vec![vec![]], None::<Vec<NodeId>>);
    while !words.rest.is_empty() {
        match words.next()?.as_str() {
            "->" => sets.push(vec![]),
            "learners" => learners = Some(vec![]),
            node => {
                let node = parse(node)?;
                let last = sets.last_mut().ok_or("no set")?;
                learners.as_mut().unwrap_or(last).push(node);
            }
        }
    }
    let learners = learners.unwrap_or_default();
    let configuration = match <[_; 2]>::try_from(sets) {
        Ok([outgoing, voters]) => Configuration::joint(outgoing, voters, learners),
        Err(sets) => Configuration::uniform(sets.concat(), learners),
    };
    Ok(Command::Configure { configuration })
}

fn join(words: &mut Words<'_>) -> Result<Command, String> {
    let (node, role) = (words.id::<NodeId>()?, role(&words.next()?)?);
    let (mut disk, mut nonce, mut boot) = (None, None, None);
    let mut addresses = vec![unchecked(&format!("{node}:7400"))?];
    let mut contract = Contract::default();
    let (mut left, mut hint) = (None, None);
    while !words.rest.is_empty() {
        let word = words.next()?;
        match word.split_once('=') {
            Some(("disk", value)) => {
                let (id, opened) = value.split_once('/').ok_or("a disk is id/opened")?;
                disk = Some(Disk { id: DiskId::new(parse(id)?), opened: parse(opened)? });
            }
            Some(("nonce", value)) => nonce = Some(parse::<u128>(value)?),
            Some(("boot", value)) => boot = Some(parse::<u128>(value)?),
            Some(("at", "")) => addresses = vec![],
            Some(("at", value)) => addresses = value.split(',').map(unchecked).collect::<Result<_, _>>()?,
            Some(("lease", value)) => contract.lease = Duration::from_millis(parse(value)?),
            Some(("drift", value)) => contract.drift = Drift::ppm(parse(value)?),
            Some(("stop", value)) => contract.stop = stop(value)?,
            Some(("left", value)) => left = Some(Incarnation::new(parse(value)?)),
            Some(("hint", value)) => hint = Some(FenceHint::new(value).map_err(|error| error.to_string())?),
            _ => return Err(format!("`{word}` is not part of a join")),
        }
    }
    let (disk, nonce) = (disk.ok_or("a join needs disk=")?, nonce.ok_or("a join needs nonce=")?);
    let boot = BootId::new(boot.unwrap_or(nonce));
    Ok(Command::Join { node, role, addresses, disk, boot, nonce: Nonce::new(nonce), contract, left, hint })
}

/// `tokens`, `deadman:250`, `own:100`, `watchdog:1000,200`.
fn stop(word: &str) -> Result<Stop, String> {
    let ms = |word: &str| Ok::<_, String>(Duration::from_millis(parse(word)?));
    match word.split_once(':') {
        None if word == "tokens" => Ok(Stop::Tokens),
        None if word == "unbounded" => Ok(Stop::Unbounded),
        Some(("deadman", bound)) => Ok(Stop::Deadman { lateness: ms(bound)? }),
        Some(("own", bound)) => Ok(Stop::Own { bound: ms(bound)? }),
        Some(("watchdog", times)) => {
            let (timeout, reset) = times.split_once(',').ok_or("a watchdog is timeout,reset")?;
            Ok(Stop::Watchdog { timeout: ms(timeout)?, reset: ms(reset)? })
        }
        _ => Err(format!("`{word}` stops nothing")),
    }
}

fn role(word: &str) -> Result<Role, String> {
    match word {
        "voter" => Ok(Role::Voter),
        "learner" => Ok(Role::Learner),
        "witness" => Ok(Role::Witness),
        other => Err(format!("`{other}` is no role")),
    }
}

fn cause(words: &mut Words<'_>) -> Result<Cause, String> {
    match words.next()?.as_str() {
        "silent" => Ok(Cause::Silent { for_ms: words.number()? }),
        "returned" => Ok(Cause::Returned { as_life: words.id()? }),
        "requested" => Ok(Cause::Requested { reason: words.text()?, by: words.asker()? }),
        "lapsed" => Ok(Cause::Lapsed),
        "refused" => Ok(Cause::Refused),
        other => Err(format!("`{other}` is no cause")),
    }
}

fn confirmation(words: &mut Words<'_>) -> Result<Confirmation, String> {
    match words.next()?.as_str() {
        "device" => {
            let by = words.after("by")?.id()?;
            Ok(Confirmation::Device { by, attempt: words.after("attempt")?.attempt()?, evidence: words.text()? })
        }
        "operator" => Ok(Confirmation::Operator { name: words.text()?, reason: words.text()?, by: words.asker()? }),
        other => Err(format!("`{other}` confirms nothing")),
    }
}

/// A text as a wire brings it: the type says nothing about what it holds.
fn unchecked<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(SeqDeserializer::<_, Error>::new(std::iter::once(text))).map_err(|error| error.to_string())
}

fn parse<T: FromStr<Err: ToString>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error: T::Err| format!("`{word}`: {}", error.to_string()))
}

struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    /// The next word; `"several words"` and `"x"*5000` are one.
    fn next(&mut self) -> Result<String, String> {
        let quoted = self.rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (text, times) = match quoted {
            None if self.rest.is_empty() => return Err("a word is missing".into()),
            None => {
                let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
                self.rest = rest.trim_start();
                return Ok(word.into());
            }
            Some((text, rest)) => {
                let (times, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                self.rest = rest.trim_start();
                (text, times)
            }
        };
        let times = times.strip_prefix('*').map_or(Ok(1), parse)?;
        Ok(text.repeat(times))
    }

    fn after(&mut self, expected: &str) -> Result<&mut Self, String> {
        let word = self.next()?;
        if word == expected { Ok(self) } else { Err(format!("`{word}` where `{expected}` belongs")) }
    }

    fn id<T: FromStr<Err = ParseIdError>>(&mut self) -> Result<T, String> {
        parse(&self.next()?)
    }

    /// Who asked, at the end of a line: `by alice.operators`.
    fn asker(&mut self) -> Result<Option<Principal>, String> {
        if self.rest.is_empty() { Ok(None) } else { self.after("by")?.text().map(Some) }
    }

    fn number(&mut self) -> Result<u64, String> {
        parse(&self.next()?)
    }

    fn attempt(&mut self) -> Result<u32, String> {
        parse(&self.next()?)
    }

    fn text<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        unchecked(&self.next()?)
    }

    fn texts<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, String> {
        let mut texts = vec![];
        while !self.rest.is_empty() {
            texts.push(self.text()?);
        }
        Ok(texts)
    }
}
