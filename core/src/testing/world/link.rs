//! The network of one client: everything that it says or hears goes over one link, which may be slow, cut or silent.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use super::lock;
use super::pipe::Pipe;
use super::random::Random;
use super::virtual_time::VirtualTime;
use crate::error::{Error, Result};

/// Whether anything gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// Everything arrives.
    #[default]
    Up,
    /// Nothing arrives, and whoever tries is told so.
    Cut,
    /// Nothing arrives, and nobody is told: connections are half open.
    Silent,
}

/// The link of one client. A handle.
#[derive(Clone)]
pub(super) struct Link {
    state: Arc<Mutex<LinkState>>,
    pub(super) time: VirtualTime,
    pub(super) random: Random,
}

/// Chances are in permille, delays in milliseconds.
#[derive(Default)]
pub(super) struct LinkState {
    pub(super) mode: Mode,
    /// Every increase ends the calls that are on their way.
    resets: u64,
    /// The longest time that a message takes.
    pub(super) delay: u64,
    /// An answer never comes.
    pub(super) answers_lost: u64,
    /// A request arrives twice.
    pub(super) repeats: u64,
    /// A piece of a stream is damaged.
    pub(super) damages: u64,
    pipes: Vec<Pipe>,
    wakers: Vec<Waker>,
}

impl Link {
    pub(super) fn new(time: VirtualTime, random: Random) -> Self {
        Self { state: Arc::default(), time, random }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LinkState> {
        lock(&self.state)
    }

    pub(super) fn mode(&self) -> Mode {
        self.lock().mode
    }

    /// Changes the mode. Cutting breaks every connection, in sight of both ends.
    pub(super) fn set_mode(&self, mode: Mode) {
        self.lock().mode = mode;
        if mode == Mode::Cut {
            self.reset();
        }
        self.wake();
    }

    /// Breaks every connection and call on the way, in sight of both ends.
    pub(super) fn reset(&self) {
        let pipes = {
            let mut state = self.lock();
            state.resets += 1;
            std::mem::take(&mut state.pipes)
        };
        pipes.iter().for_each(Pipe::reset);
        self.wake();
    }

    /// Lets every connection die in silence: neither end is told.
    pub(super) fn kill_silently(&self) {
        let pipes = self.lock().pipes.clone();
        pipes.iter().for_each(Pipe::kill);
    }

    pub(super) fn add(&self, pipe: Pipe) {
        let mut state = self.lock();
        state.pipes.retain(|pipe| !pipe.is_over());
        state.pipes.push(pipe);
    }

    /// One way of a message.
    pub(super) async fn trip(&self) -> Result<()> {
        let (delay, resets) = {
            let state = self.lock();
            (state.delay, state.resets)
        };
        self.time.delay(self.random.between(0, delay)).await;
        let (mode, now) = {
            let state = self.lock();
            (state.mode, state.resets)
        };
        match mode {
            _ if now != resets => Err(broken()),
            Mode::Up => Ok(()),
            Mode::Cut => Err(Error::unavailable("the network is away")),
            Mode::Silent => self.hang(resets).await,
        }
    }

    /// The way of an answer, which may get lost.
    pub(super) async fn answer(&self) -> Result<()> {
        let (lost, resets) = {
            let state = self.lock();
            (state.answers_lost, state.resets)
        };
        if self.random.permille(lost) {
            return self.hang(resets).await;
        }
        self.trip().await
    }

    /// Nothing comes any more, until the connection is broken in sight of both ends.
    pub(super) async fn hang_on(&self) -> Result<()> {
        let resets = self.lock().resets;
        self.hang(resets).await
    }

    async fn hang(&self, resets: u64) -> Result<()> {
        futures::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.resets != resets {
                return Poll::Ready(Err(broken()));
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        let (wakers, pipes) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.wakers), state.pipes.clone())
        };
        pipes.iter().for_each(Pipe::wake);
        wakers.into_iter().for_each(Waker::wake);
    }
}

pub(super) fn broken() -> Error {
    Error::unavailable("the connection broke")
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.mode()).finish()
    }
}
