//! Hints reach whoever listens, and a listener that fell behind finds out and goes on.

use std::time::Duration;

use stockade_bus::InProcessBus;
use stockade_domain::RunId;
use stockade_ports::{Bus, Topic};
use tokio::{
    sync::broadcast::error::{RecvError, TryRecvError},
    time::timeout,
};
use uuid::Uuid;

fn run(n: u128) -> Topic {
    Topic::Run(RunId::from_uuid(Uuid::from_u128(n)))
}

#[tokio::test]
async fn every_listener_hears_every_hint_in_order() {
    let bus = InProcessBus::default();
    let (mut first, mut second) = (bus.subscribe(), bus.clone().subscribe());
    bus.publish(run(1)).await;
    bus.publish(Topic::Queue).await;
    for listener in [&mut first, &mut second] {
        assert_eq!(listener.recv().await, Ok(run(1)));
        assert_eq!(listener.recv().await, Ok(Topic::Queue));
        assert_eq!(listener.try_recv(), Err(TryRecvError::Empty));
    }
    let mut late = bus.subscribe();
    assert_eq!(late.try_recv(), Err(TryRecvError::Empty), "listening begins now");
    bus.publish(run(2)).await;
    assert_eq!(late.recv().await, Ok(run(2)));
}

#[tokio::test]
async fn publishing_waits_for_nobody() {
    let bus = InProcessBus::with_capacity(2);
    bus.publish(run(0)).await;
    let mut asleep = bus.subscribe();
    let mut awake = bus.subscribe();
    let all = async {
        for n in 1..=1000 {
            bus.publish(run(n)).await;
            assert_eq!(
                awake.recv().await,
                Ok(run(n)),
                "one sleeper does not hold up the others"
            );
        }
    };
    timeout(Duration::from_secs(10), all)
        .await
        .expect("publishing does not block");
    assert_eq!(
        asleep.recv().await,
        Err(RecvError::Lagged(998)),
        "who fell behind is told"
    );
    assert_eq!(asleep.recv().await, Ok(run(999)));
    assert_eq!(asleep.recv().await, Ok(run(1000)));
    bus.publish(Topic::Queue).await;
    assert_eq!(asleep.recv().await, Ok(Topic::Queue), "and hears what comes next");
}
