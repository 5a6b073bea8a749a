//! What is provisioned is what the tests find.
#![allow(clippy::unwrap_used)]

use postgres_fixture::Binaries;

#[test]
fn the_fixture_finds_the_postgres_that_is_provisioned() {
    let provisioned = xtask::postgres::ensure().unwrap();
    assert_eq!(Binaries::find().unwrap().program("initdb"), provisioned.join("initdb"));
}
