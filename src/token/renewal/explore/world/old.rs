//! Faults of earlier designs, reintroduced around the real machine: the exploration must find each.

use super::super::super::{Phase, StoreState};
use super::{Choice, Event, POLL, STANDBY_EXPIRY, StoreError, UnderWay, World, model};
use crate::clock::Instant;

/// An earlier behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Old {
    /// A store whose writes failed is not retried: only its notification ends the wait.
    Unprobed,
    /// A request that could not be booked is sent.
    Unbooked,
    /// After an outage the renewal stays delayed.
    Delayed,
    /// A standby place lasts 50 s, and is not given up at exit.
    Standbys,
    /// A token that the API rejects for everyone is sent when its replacement fails.
    DeadToken,
    /// A store that can be read counts as usable.
    Readable,
}

impl World {
    /// Returns a world with the behaviours of `old`, in which only faults on the `menu` happen.
    pub(in super::super) fn with(
        faults: u8,
        old: &'static [Old],
        menu: fn(Choice) -> bool,
    ) -> World {
        World {
            old,
            menu,
            ..World::new(faults)
        }
    }

    /// Runs without a fault until `begin`. For ten minutes after it, time advances by one heartbeat
    /// at most, so that faults can happen between two events too.
    pub(in super::super) fn after(mut self, begin: u64) -> World {
        self.tick = POLL;
        self.horizon = begin + 600_000;
        while self.now < begin {
            let next = self.choices().into_iter().find(Choice::is_well);
            self.take(&next.unwrap());
        }
        self
    }

    pub(super) fn is_old(&self, old: Old) -> bool {
        self.old.contains(&old)
    }

    pub(super) fn standby_expiry(&self) -> u64 {
        match self.is_old(Old::Standbys) {
            true => 50_000,
            false => STANDBY_EXPIRY,
        }
    }

    /// The event as an earlier loop reported it.
    pub(super) fn as_before(&self, nth: usize, event: Event) -> Event {
        let phase = &self.replicas[nth].machine.phase;
        let is_writing = matches!(phase, Phase::Booking | Phase::Storing);
        match event {
            Event::Published(Err(StoreError::Unavailable(_)))
                if self.is_old(Old::Unbooked) && is_writing =>
            {
                Event::Published(Ok(()))
            }
            event => event,
        }
    }

    /// Changes the result of a step; before it, the renewal was delayed until `deferral`.
    pub(super) fn behave_as_before(&mut self, nth: usize, deferral: Option<Instant>) {
        let (unprobed, delayed) = (self.is_old(Old::Unprobed), self.is_old(Old::Delayed));
        let readable = self.is_old(Old::Readable);
        let day = self.now + 24 * 3_600_000;
        let replica = &mut self.replicas[nth];
        let is_usable = replica.machine.store == StoreState::Usable;
        if let UnderWay::Wait(at) = &mut replica.under_way {
            if unprobed && !is_usable {
                *at = model(replica.machine.schedule.next_request()).min(day);
            }
            if delayed
                && is_usable
                && let Some(until) = deferral
            {
                replica.machine.schedule.delay(until);
                *at = (*at).max(model(until));
            }
        }
        if readable {
            replica.machine.unwritten = None;
        }
    }
}
