//! Fuzz target of the index of routes: bytes decide what routes there are, how they change and what is asked.
//! Never: part of the product; built for tests and by cargo-fuzz (`fuzz/`) only.
//! Always: the target panics if and only if the index does not answer as the flat walk does, or differs from one that is
//! built anew.

use crate::router::RouteKey;
use crate::router::Router;
use crate::router::worlds::AnyTwin;
use crate::router::worlds::FLAVORS;
use crate::router::worlds::Written;
use crate::router::worlds::build;
use crate::router::worlds::compiled;
use crate::router::worlds::random_request;
use crate::router::worlds::random_route;
use crate::stdx::fuzzing::Chance;

/// Keys that routes come and go under.
const KEYS: usize = 8;
/// Changes of one world, and requests after them.
const CHANGES_MAX: usize = 24;
const REQUESTS_MAX: usize = 16;

/// Any bytes as a world of routes in one flavour, changed in place, and requests to it.
pub fn routes(bytes: &[u8]) {
    let mut chance = Chance::of(bytes);
    let flavor = FLAVORS[chance.usize(..FLAVORS.len())];
    let mut router = Router::new();
    let mut routes: [Option<Written>; KEYS] = Default::default();
    for _ in 0..chance.usize(1..CHANGES_MAX) {
        if chance.is_used_up() {
            break;
        }
        let index = chance.usize(..KEYS);
        let key = RouteKey(index as u32);
        let had = routes[index].is_some();
        routes[index] = (chance.usize(..4) > 0).then(|| random_route(&mut chance, flavor));
        let replaced = match &routes[index] {
            Some(written) => router.insert(key, compiled(flavor, written)),
            None => router.remove(key),
        };
        assert_eq!(replaced.is_some(), had);
    }
    let keyed = || (0..).map(RouteKey).zip(&routes).filter_map(|(key, written)| Some((key, written.as_ref()?)));
    let (fresh, twin) = (build(flavor, keyed()), AnyTwin::new(flavor, keyed()));
    assert_eq!(router.len(), keyed().count());
    let rules = || keyed().map(|(_, written)| &written.rules).collect::<Vec<_>>();
    assert!(router.same_as(&fresh), "{flavor:?} {:?}", rules());
    for _ in 0..REQUESTS_MAX {
        let request = random_request(&mut chance);
        assert_eq!(request.find_in(&router), twin.find(&request), "{flavor:?} {:?} {request:?}", rules());
        if chance.is_used_up() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fuzzing::check;

    #[test]
    fn any_bytes_make_a_world_in_which_the_index_agrees_with_the_flat_walk() {
        check("routes", &["\0\0\0\0", "\u{1}\u{3}", "\u{2}\u{7}\u{4}", "abcdefgh", "\u{7f}"], 300, routes);
    }
}
