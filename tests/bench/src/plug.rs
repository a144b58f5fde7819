//! Measures the daemon's share of the time from a plug to the offer.

use std::time::Duration;

use keywright_bus_tests::{Plugged, Station};

use crate::{
    commands::COMMANDS_BEFORE_OFFER,
    offers::Offers,
    table::{Goal, Row, Samples},
    token_log::token_time,
};

/// Far longer than any offer takes.
const LIMIT: Duration = Duration::from_secs(10);
/// Plugs that are not counted, while caches are cold.
const WARM_UP: usize = 5;

/// Plugs blank Keys beside a Master with a Lock, one after another.
pub async fn measure(plugs: usize) -> Vec<Row> {
    let mut station = Station::unwatched(|_| ()).await;
    let _master = with_lock(&mut station).await;
    let mut offers = Offers::listen(&station.bus.connect().await).await;
    let mut times = Vec::new();
    for number in 0..WARM_UP + plugs {
        let (card, key) = station.insert(&format!("blank {number}"), &[]);
        let (job, came) = offers.next_offer(LIMIT).await.expect("an offer");
        let whole = came - card.plugged();
        let token = token_time(&card.take_exchanges(), COMMANDS_BEFORE_OFFER);
        times.push((whole, token));
        // Otherwise the job would wait for its Key.
        station.client.serialization(&job).await.cancel().await.unwrap();
        drop((card, key));
    }
    let counted = &times[WARM_UP..];
    let own: Samples = counted.iter().map(|(whole, token)| whole.saturating_sub(*token)).collect();
    let token: Samples = counted.iter().map(|(_, token)| *token).collect();
    let goal = Goal { p50: Some(3.0), p99: Some(10.0) };
    vec![
        Row::times("plug to offer, the daemon's own share", goal, &own),
        Row::times("plug to offer, the token's share", Goal::NONE, &token),
    ]
}

/// Makes a Master with one Lock; it stays plugged in.
pub async fn with_lock(station: &mut Station) -> Plugged {
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    station.add_lock(&master, "gate").await;
    master
}
