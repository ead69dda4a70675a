//! The resource: a file that is written only through a [`TokenGate`], one line per write.
//!
//! ```text
//!   "r12 n1#1 7" ──▶ gate.admit_and(r12, append) ─▶ "ok"
//!                                                └▶ "refused: token r12 was superseded by r40; …"
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate::{Revision, lock::TokenGate};

/// The tokens of the lines that were written and refused, in the order in which that happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    written: Vec<String>,
    refused: Vec<String>,
}

impl State {
    /// The tokens of the written lines, in order; a token that returns after another one appears again.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let mut tokens = self.written.clone();
        tokens.dedup();
        tokens
    }

    pub(crate) fn lines_under(&self, token: &str) -> usize {
        self.written.iter().filter(|written| *written == token).count()
    }

    pub(crate) fn refused_under(&self, token: &str) -> usize {
        self.refused.iter().filter(|refused| *refused == token).count()
    }

    /// Whether no written line has a smaller token than the line before it.
    pub(crate) fn in_order(&self) -> bool {
        let tokens: Vec<Option<Revision>> = self.written.iter().map(|token| token.parse().ok()).collect();
        tokens.iter().all(Option::is_some) && tokens.is_sorted()
    }

    pub(crate) fn summary(&self) -> String {
        let owners = self.tokens().iter().map(|t| format!("{} under {t}", self.lines_under(t))).collect::<Vec<_>>();
        format!("lines written: {}; refused: {}", owners.join(", "), self.refused.len())
    }
}

struct Shared {
    gate: TokenGate,
    file: Mutex<File>,
    state: Mutex<State>,
}

/// The storage server. It runs until this process ends.
pub(crate) struct Storage {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Storage {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(folder.join("data"))?;
        let gate = TokenGate::durable(folder.join("token"))?;
        let shared = Arc::new(Shared { gate, file: Mutex::new(file), state: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let serving = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = serving.clone();
                std::thread::spawn(move || {
                    if let Err(error) = serve(&shared, connection) {
                        eprintln!("the connection of a writer failed: {error:#}");
                    }
                });
            }
        });
        Ok(Self { shared, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn look(&self) -> State {
        lock(&self.shared.state).clone()
    }

    /// Waits until the state satisfies `what`. `claim` names the condition in the error.
    pub(crate) fn until(&self, claim: &str, timeout: Duration, what: impl Fn(&State) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !what(&self.look()) {
            ensure!(begun.elapsed() < timeout, "not within {timeout:?}: {claim}; {}", self.look().summary());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn serve(shared: &Shared, connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut answers = connection.try_clone()?;
    for line in BufReader::new(connection).lines() {
        let line = line?;
        let token: Revision = line.split(' ').next().context("a token")?.parse()?;
        let written = shared.gate.admit_and(token, || -> Result<()> {
            writeln!(lock(&shared.file), "{line}")?;
            lock(&shared.state).written.push(token.to_string());
            Ok(())
        });
        match written {
            Ok(done) => done.and_then(|()| Ok(writeln!(answers, "ok")?))?,
            Err(error) => {
                lock(&shared.state).refused.push(token.to_string());
                writeln!(answers, "refused: {error}")?;
            }
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
