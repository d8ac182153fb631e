//! Services over a reload, their names, and their mistakes.

use pgdetour::{
    config::Pings,
    service::{Service, ServiceError, Tcp},
};
use tokio::net::TcpListener;

use super::harness::{Tested, Watch, config, config_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_was_registered_and_follows_what_is_declared() -> Tested {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let place = listener.local_addr()?.to_string();
    let declared = |name: &str, place: &str| format!("[service.{name}]\nkind = \"tcp\"\nurl = \"{place}\"\n");
    let mut watch = Watch::with(config_with(&declared("gone", "127.0.0.1:1"))?).await?;
    let own = watch.router.register(Tcp::new("own", &place)?).await?;
    let switch = watch.router.switch_on_service("gone", 1, 2)?;
    let names = |watch: &Watch| watch.router.services().iter().map(|it| it.name.to_string()).collect::<Vec<_>>();
    assert_eq!((names(&watch), *switch.get()), (vec!["gone".to_owned(), "own".to_owned()], 2));

    // The same name for an alias and a service is a mistake, and nothing has changed then.
    let clash = watch.router.reload(config_with(&declared("own", &place))?).await.expect_err("one namespace");
    assert!(clash.to_string().contains("service.own"), "{clash}");
    assert_eq!(names(&watch).len(), 2);

    watch.router.reload(config_with(&declared("gone", &place))?).await?;
    assert!(!own.is_out() && *switch.get() == 1, "it is at another place, and up there");
    watch.router.reload(config()?).await?;
    assert_eq!((names(&watch), *switch.get()), (vec!["own".to_owned()], 2));
    drop(listener);
    watch.until_out("own").await?;
    assert!(own.is_out());
    watch.router.shutdown().await;
    assert!(watch.router.register(Tcp::new("late", &place)?).await.is_err_and(|error| error.is_closed()));
    Ok(())
}

struct Named(&'static str, Pings);

impl Service for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn address(&self) -> String {
        "127.0.0.1:1".to_owned()
    }

    async fn ping(&self, _: std::time::Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn pings(&self, _: &Pings) -> Pings {
        self.1.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_and_frequencies_without_sense_are_refused() -> Tested {
    let watch = Watch::start().await?;
    watch.router.register(Named("taken", Pings::default())).await?;
    let never = Pings { monitoring_ping_frequency: std::time::Duration::ZERO, ..Pings::default() };
    for (service, wanted) in [
        (Named("taken", Pings::default()), "service.taken: is registered already"),
        (Named("primary", Pings::default()), "service.primary: an alias has this name"),
        (Named("No\nname", Pings::default()), "not a name"),
        (Named("never", never), "service.never.monitoring_ping_frequency: should not be zero"),
    ] {
        let error = watch.router.register(service).await.expect_err(wanted);
        assert!(error.to_string().contains(wanted) && error.as_config().is_some(), "{error}");
    }
    let error = watch.router.service("takn").expect_err("there is none").to_string();
    assert_eq!(error, "no service is named \"takn\"; did you mean \"taken\"?");
    Ok(())
}
