//! Made-up people, for the demonstration.
//!
//! Their numbers begin with +999, which no country has; any likeness of names is chance. The same seed makes the same people.
//! Most are there with a picture; the rest shows what else a gateway can say. The first few are the same for every seed
//! and are spared what goes wrong by chance, so that a line of documentation can name them and say what is answered.

use std::time::Duration;

use super::script::{Address, Reply};
use super::{Options, SimulatedGateway, Trouble};
use crate::jid::Jid;

/// Somebody with a picture.
pub const PRESENT: &str = "99900000001";
/// Somebody without one.
pub const WITHOUT_PICTURE: &str = "99900000002";
/// Somebody whose answer takes four seconds.
pub const SLOW: &str = "99900000003";
/// Somebody with another picture every minute.
pub const RESTLESS: &str = "99900000004";
/// Somebody who hides the picture.
pub const HIDDEN: &str = "99900000005";
/// A number that is not registered.
pub const UNREGISTERED: &str = "99900000006";
/// A group with a picture.
pub const GROUP: &str = "120363999000000007@g.us";
/// Somebody known by hidden id only.
pub const LID: &str = "999000000000008@lid";
/// A channel: its picture has an id and no address.
pub const CHANNEL: &str = "120363999000000009@newsletter";

const WELL_KNOWN: [(&str, &str, Manner); 9] = [
    (PRESENT, "Ada Quillfeather", Manner::Public),
    (WITHOUT_PICTURE, "Bertil Nomask", Manner::WithoutPicture),
    (SLOW, "Cosima Tarry", Manner::Slow(Duration::from_secs(4))),
    (RESTLESS, "Dario Whirl", Manner::Restless(Duration::from_secs(60))),
    (HIDDEN, "Edda Veil", Manner::Hidden),
    (UNREGISTERED, "Fritjof Nowhere", Manner::Unregistered),
    (GROUP, "The Lantern Choir", Manner::Public),
    (LID, "Gwendal Ashmote", Manner::Public),
    (CHANNEL, "Daily Marmalade", Manner::Channel),
];

const FIRST: [&str; 20] = [
    "Ansa", "Bram", "Cleo", "Dunja", "Emrys", "Fenna", "Goran", "Hedda", "Ilmar", "Jorun", "Kasimir", "Liv", "Mirko",
    "Nadja", "Orla", "Piet", "Runa", "Soren", "Tilda", "Wim",
];

const LAST: [&str; 20] = [
    "Amberly",
    "Birchall",
    "Copperpot",
    "Dewdrop",
    "Elmsworth",
    "Fennimore",
    "Glimmer",
    "Hazelnut",
    "Inkwell",
    "Jasperson",
    "Kettleby",
    "Larkspur",
    "Mossgrove",
    "Nettlecomb",
    "Oakenfold",
    "Pebbles",
    "Quickstep",
    "Rosewater",
    "Summerlin",
    "Thistle",
];

/// What the gateway says of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// There is a picture for everybody.
    Public,
    /// There is one, and another each time this has passed.
    Restless(Duration),
    /// There is one, and now and then it is said to be hidden.
    Moody,
    /// There is one, and it takes this long.
    Slow(Duration),
    /// There is one without an address.
    Channel,
    /// There is none.
    WithoutPicture,
    /// It is hidden.
    Hidden,
    /// The number is not registered.
    Unregistered,
}

/// Somebody who does not exist.
#[derive(Clone, Debug)]
pub struct Somebody {
    /// Canonical address.
    pub jid: Jid,
    /// Made-up name.
    pub name: String,
    /// What the gateway says of them.
    pub manner: Manner,
}

/// Everybody who does not exist.
#[derive(Clone, Debug)]
pub struct Population {
    people: Vec<Somebody>,
}

impl Population {
    /// `n` of them; the first nine are always the same.
    #[must_use]
    pub fn generate(seed: u64, n: usize) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let well_known = WELL_KNOWN.iter().map(|(phone, name, manner)| somebody(phone, (*name).to_owned(), *manner));
        let others = (WELL_KNOWN.len()..).map(|number| invent(number + 1, &mut dice));
        Self { people: well_known.chain(others).take(n).collect() }
    }

    /// All of them.
    #[must_use]
    pub fn people(&self) -> &[Somebody] {
        &self.people
    }

    /// Makes the gateway know them.
    pub fn settle(&self, gateway: &SimulatedGateway) {
        for (number, somebody) in self.people.iter().enumerate() {
            let person = gateway.person(&somebody.jid.to_string());
            if number < WELL_KNOWN.len() {
                person.spared_trouble();
            }
            match somebody.manner {
                Manner::Public => person.replies(Reply::Present),
                Manner::Restless(every) => person.replies(Reply::Present).picture_turns(every),
                Manner::Moody => person.replies(Reply::Hidden.one_in(6, Reply::Present)),
                Manner::Slow(delay) => person.replies(Reply::Present.after(delay)),
                Manner::Channel => person.replies(Reply::Present).address(Address::Missing),
                Manner::WithoutPicture => person.replies(Reply::NotSet),
                Manner::Hidden => person.replies(Reply::Hidden),
                Manner::Unregistered => person.replies(Reply::Unregistered),
            };
        }
    }
}

fn somebody(phone: &str, name: String, manner: Manner) -> Somebody {
    Somebody { jid: Jid::parse(phone).expect("made-up numbers are readable"), name, manner }
}

fn invent(number: usize, dice: &mut fastrand::Rng) -> Somebody {
    let mut one_of = |names: &[&'static str]| names[dice.usize(..names.len())];
    let (first, last) = (one_of(&FIRST), one_of(&LAST));
    let phone = format!("9990000{number:04}");
    let seconds = |dice: &mut fastrand::Rng, range| Duration::from_secs(dice.u64(range));
    let manner = match dice.u32(0..100) {
        0..4 => {
            return somebody(&format!("12036399900{number:07}@g.us"), format!("Friends of {first}"), Manner::Public);
        }
        4..14 => Manner::Restless(seconds(dice, 120..1200)),
        14..22 => Manner::WithoutPicture,
        22..28 => Manner::Hidden,
        28..32 => Manner::Unregistered,
        32..35 => Manner::Slow(seconds(dice, 2..7)),
        35..38 => Manner::Moody,
        _ => Manner::Public,
    };
    somebody(&phone, format!("{first} {last}"), manner)
}

impl Options {
    /// A gateway worth watching for some minutes: URLs that live three to six of them, answers that take their time, and now
    /// and then a public picture that is said to be hidden, a failure in passing, a rate limit. Nobody else is registered.
    #[must_use]
    pub fn demo(seed: u64) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            latency: Duration::from_millis(80)..=Duration::from_millis(450),
            url_lifetime: 3 * MINUTE..=6 * MINUTE,
            expiry_step: MINUTE / 2,
            strangers: Reply::Unregistered,
            troubles: vec![
                Trouble { one_in: 500, reply: Reply::RateLimited },
                Trouble { one_in: 200, reply: Reply::Hidden },
                Trouble { one_in: 200, reply: Reply::internal("failed to get avatar: websocket not connected") },
            ],
            remember: 10_000,
            seed,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn everybody_has_an_address_of_their_own_and_the_same_seed_makes_the_same_people() {
        let population = Population::generate(7, 500);
        let jids: HashSet<_> = population.people().iter().map(|somebody| somebody.jid).collect();
        assert_eq!(jids.len(), 500);
        let again = Population::generate(7, 500);
        assert!(population.people().iter().zip(again.people()).all(|(a, b)| a.name == b.name && a.manner == b.manner));
        let present = |somebody: &&Somebody| matches!(somebody.manner, Manner::Public | Manner::Restless(_));
        let share = population.people().iter().filter(present).count();
        assert!((300..450).contains(&share), "{share} of 500 have a picture");
    }

    #[test]
    fn a_small_population_is_the_well_known_ones() {
        let population = Population::generate(7, 3);
        let jids: Vec<_> = population.people().iter().map(|somebody| somebody.jid.user().to_owned()).collect();
        assert_eq!(jids, [PRESENT, WITHOUT_PICTURE, SLOW]);
    }
}
