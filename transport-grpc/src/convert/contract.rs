//! The contract of a life, both ways, and the reasons why a contract is rejected.
//!
//! A contract is only read here. The rules decide whether it can be kept, so that every node decides alike.

use std::time::Duration;

use quorate_membership::{Contract, ContractError, ContractPart, Drift, Stop};

use super::{FromWire, Malformed, nanos, need};
use crate::pb;

impl From<Contract> for pb::Contract {
    fn from(Contract { lease, stop, in_flight, drift }: Contract) -> Self {
        Self { lease_ns: nanos(lease), stop: Some(stop.into()), in_flight_ns: nanos(in_flight), drift_ppm: drift.get() }
    }
}

impl FromWire<pb::Contract> for Contract {
    fn from_wire(contract: pb::Contract) -> Result<Self, Malformed> {
        let pb::Contract { lease_ns, stop, in_flight_ns, drift_ppm } = contract;
        Ok(Self {
            lease: Duration::from_nanos(lease_ns),
            stop: Stop::from_wire(need(stop, "what stops the work of a life")?)?,
            in_flight: Duration::from_nanos(in_flight_ns),
            drift: Drift::ppm(drift_ppm),
        })
    }
}

impl From<Stop> for pb::Stop {
    fn from(stop: Stop) -> Self {
        use pb::stop::Mechanism as Out;
        let mechanism = match stop {
            Stop::Unbounded => Out::Unbounded(pb::Done {}),
            Stop::Tokens => Out::Tokens(pb::Done {}),
            Stop::Watchdog { timeout, reset } => {
                Out::Watchdog(pb::Watchdog { timeout_ns: nanos(timeout), reset_ns: nanos(reset) })
            }
            Stop::Deadman { lateness } => Out::DeadmanLatenessNs(nanos(lateness)),
            Stop::Own { bound } => Out::OwnBoundNs(nanos(bound)),
        };
        Self { mechanism: Some(mechanism) }
    }
}

impl FromWire<pb::Stop> for Stop {
    fn from_wire(stop: pb::Stop) -> Result<Self, Malformed> {
        use pb::stop::Mechanism as In;
        Ok(match need(stop.mechanism, "the mechanism that stops the work of a life")? {
            In::Unbounded(pb::Done {}) => Self::Unbounded,
            In::Tokens(pb::Done {}) => Self::Tokens,
            In::Watchdog(pb::Watchdog { timeout_ns, reset_ns }) => {
                Self::Watchdog { timeout: Duration::from_nanos(timeout_ns), reset: Duration::from_nanos(reset_ns) }
            }
            In::DeadmanLatenessNs(lateness) => Self::Deadman { lateness: Duration::from_nanos(lateness) },
            In::OwnBoundNs(bound) => Self::Own { bound: Duration::from_nanos(bound) },
        })
    }
}

impl From<&ContractError> for pb::ContractFault {
    fn from(error: &ContractError) -> Self {
        use pb::contract_fault::Fault as Out;
        let fault = match error {
            ContractError::Bounds { what, got, low, high } => Some(Out::Bounds(pb::TimeOutOfBounds {
                part: pb::ContractPart::from(*what).into(),
                got_ns: nanos(*got),
                low_ns: nanos(*low),
                high_ns: nanos(*high),
            })),
            ContractError::Drift { got } => Some(Out::DriftPpm(got.get())),
            ContractError::Watchdog { timeout, lease } => {
                Some(Out::Watchdog(pb::SlowWatchdog { timeout_ns: nanos(*timeout), lease_ns: nanos(*lease) }))
            }
            // A case of newer rules: the text of the rejection around it tells what is wrong.
            _ => None,
        };
        Self { fault }
    }
}

impl FromWire<pb::ContractFault> for ContractError {
    fn from_wire(fault: pb::ContractFault) -> Result<Self, Malformed> {
        use pb::contract_fault::Fault as In;
        let time = Duration::from_nanos;
        Ok(match need(fault.fault, "what is wrong with a contract")? {
            In::Bounds(pb::TimeOutOfBounds { part, got_ns, low_ns, high_ns }) => {
                let what = ContractPart::from_wire(pb::ContractPart::try_from(part).unwrap_or_default())?;
                Self::Bounds { what, got: time(got_ns), low: time(low_ns), high: time(high_ns) }
            }
            In::DriftPpm(parts) => Self::Drift { got: Drift::ppm(parts) },
            In::Watchdog(pb::SlowWatchdog { timeout_ns, lease_ns }) => {
                Self::Watchdog { timeout: time(timeout_ns), lease: time(lease_ns) }
            }
        })
    }
}

impl From<ContractPart> for pb::ContractPart {
    fn from(part: ContractPart) -> Self {
        match part {
            ContractPart::Lease => Self::Lease,
            ContractPart::Stop => Self::Stop,
            ContractPart::InFlight => Self::InFlight,
        }
    }
}

impl FromWire<pb::ContractPart> for ContractPart {
    fn from_wire(part: pb::ContractPart) -> Result<Self, Malformed> {
        Ok(match part {
            pb::ContractPart::Unspecified => {
                return Err(Malformed(
                    "the part of a contract is missing, or one that this build does not know".into(),
                ));
            }
            pb::ContractPart::Lease => Self::Lease,
            pb::ContractPart::Stop => Self::Stop,
            pb::ContractPart::InFlight => Self::InFlight,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time that no message has room for becomes the longest that it has; such a promise is refused either way.
    #[test]
    fn a_time_beyond_the_wire_is_the_longest_that_it_has() {
        let promised = Contract { lease: Duration::MAX, ..Contract::default() };
        let read = Contract::from_wire(promised.into()).unwrap();
        assert_eq!(read.lease, Duration::from_nanos(u64::MAX));
        assert!(read.check().is_err(), "it is refused by the rules all the same");
    }

    #[test]
    fn a_contract_says_what_stops_the_work() {
        let silent = pb::Contract { stop: None, ..Contract::default().into() };
        assert!(Contract::from_wire(silent).unwrap_err().0.contains("what stops the work of a life is missing"));
        let unknown = pb::Contract { stop: Some(pb::Stop { mechanism: None }), ..Contract::default().into() };
        assert!(Contract::from_wire(unknown).unwrap_err().0.contains("the mechanism that stops the work of a life"));
    }
}
