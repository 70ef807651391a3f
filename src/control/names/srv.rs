//! SRV records -> addresses with weights and ports.
//! Always: only records of the lowest priority number count, and a record's share of the traffic is its weight, however
//! many addresses its target has.
//!
//! spec/balancer.md sections 3 and 5.

use std::net::IpAddr;
use std::sync::Arc;

use crate::state::spec::Address;

/// Weights are multiplied by at most this much to divide them evenly among the addresses of a target; beyond it, shares are
/// rounded.
const SCALE_MAX: u32 = 1000;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Lower numbers are preferred.
    pub priority: u16,
    pub weight: u16,
    /// 0: the port of whoever asked.
    pub port: u16,
    /// Lower-case, without a dot at its end.
    pub target: String,
}

/// What a weight of 0 counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroWeight {
    One,
    /// A tenth of a weight of 1.
    Tenth,
}

/// The records that count. None when all of them lead back to `asked`; one whose target is the root says "not available".
pub fn chosen(mut services: Vec<Service>, asked: &str) -> Vec<Service> {
    let asked = asked.trim_end_matches('.');
    services.retain(|service| !service.target.is_empty());
    if services.iter().all(|service| service.target.eq_ignore_ascii_case(asked)) {
        return Vec::new();
    }
    let best = services.iter().map(|service| service.priority).min();
    services.retain(|service| Some(service.priority) == best);
    services
}

/// The addresses of records whose targets are resolved, in the order of the records.
pub fn spread(found: &[(Service, Vec<IpAddr>)], zero: ZeroWeight) -> Vec<Address> {
    let resolved = || found.iter().filter(|(_, ips)| !ips.is_empty());
    let in_tenths = zero == ZeroWeight::Tenth && resolved().any(|(service, _)| service.weight == 0);
    let weight = |service: &Service| u32::from(service.weight).saturating_mul(if in_tenths { 10 } else { 1 }).max(1);
    let scale = resolved().fold(1, |scale, (service, ips)| {
        let count = ips.len() as u32;
        let needed = count / gcd(count, weight(service));
        let both = scale / gcd(scale, needed) * needed;
        if both <= SCALE_MAX { both } else { scale }
    });
    let mut addresses = Vec::new();
    for (service, ips) in resolved() {
        let name: Arc<str> = service.target.as_str().into();
        let share = (weight(service) * scale / ips.len() as u32).max(1);
        let of_record = |&ip: &IpAddr| Address {
            ip,
            port: Some(service.port),
            weight: Some(share),
            priority: service.priority,
            name: Some(name.clone()),
        };
        addresses.extend(ips.iter().map(of_record));
    }
    addresses
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, port: 80, target: target.to_owned() }
    }

    fn weights(found: &[(u16, usize)], zero: ZeroWeight) -> Vec<u32> {
        let ips = |count: usize| (0..count).map(|last| IpAddr::from([127, 0, 0, last as u8])).collect();
        let found: Vec<_> = found.iter().map(|&(weight, count)| (record(1, weight, "t"), ips(count))).collect();
        spread(&found, zero).into_iter().map(|address| address.weight.unwrap()).collect()
    }

    #[test]
    fn only_the_lowest_priority_counts() {
        let all = vec![record(5, 1, "backup"), record(1, 1, "a"), record(1, 2, "b"), record(0, 9, "")];
        assert_eq!(chosen(all, "x.test."), [record(1, 1, "a"), record(1, 2, "b")]);
        assert_eq!(chosen(vec![], "x.test"), []);
    }

    #[test]
    fn records_that_all_lead_back_say_nothing() {
        assert_eq!(chosen(vec![record(1, 1, "x.test"), record(2, 1, "X.test")], "x.test."), []);
        assert_eq!(chosen(vec![record(1, 1, "x.test"), record(1, 1, "y")], "x.test").len(), 2);
    }

    #[test]
    fn the_share_of_a_record_is_its_weight_however_many_addresses_it_has() {
        for (found, want) in [
            (&[(10, 1), (20, 1)][..], &[10, 20][..]),
            (&[(10, 2), (10, 1)], &[5, 5, 10]),
            (&[(1, 2), (1, 1)], &[1, 1, 2]),
            (&[(1, 2), (1, 3)], &[3, 3, 2, 2, 2]),
            (&[(7, 0), (3, 1)], &[3]),
            (&[], &[]),
        ] {
            assert_eq!(weights(found, ZeroWeight::One), want, "{found:?}");
        }
    }

    #[test]
    fn a_weight_of_zero_is_one_or_a_tenth_of_one() {
        assert_eq!(weights(&[(0, 1), (1, 1)], ZeroWeight::One), [1, 1]);
        assert_eq!(weights(&[(0, 1), (1, 1)], ZeroWeight::Tenth), [1, 10]);
        assert_eq!(weights(&[(3, 1), (1, 1)], ZeroWeight::Tenth), [3, 1]);
    }

    #[test]
    fn port_and_name_come_from_the_record() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let addresses = spread(&[(record(3, 9, "a.test"), vec![ip])], ZeroWeight::One);
        let want = Address { ip, port: Some(80), weight: Some(9), priority: 3, name: Some("a.test".into()) };
        assert_eq!(addresses, [want]);
    }
}
