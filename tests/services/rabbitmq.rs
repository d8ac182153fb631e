//! RabbitMQ: one for the whole file, since it takes long to start.

use std::{fs, process::Command};

use pgdetour::service::Amqp;

use super::harness::{Server, Tested, Watch, directory, free_port, program, stopped_frozen_and_restarted};
use super::jobs;

pub(crate) const PASSWORD: &str = "r4bbit-w0rd-of-the-tests";

/// A broker with a node name, an epmd and directories of its own, on loopback, for whatever user runs it.
pub(crate) struct Broker {
    pub(crate) server: Server,
    /// The name service of Erlang's nodes; it ends with the broker.
    _names: Server,
    port: u16,
}

impl Broker {
    fn start() -> Tested<Self> {
        let [port, names_port, node_port] = [free_port(), free_port(), free_port()];
        let mut names = Server::new("epmd", directory()?)?;
        names.command().args(["-address", "127.0.0.1", "-relaxed_command_check", "-port", &names_port.to_string()]);
        names.start()?;
        let mut server = Server::new(program("rabbitmq")?, directory()?)?;
        let home = server.directory.path().to_owned();
        fs::write(
            home.join("rabbitmq.conf"),
            format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = app\ndefault_pass = {PASSWORD}\n\
                 disk_free_limit.absolute = 1MB\nlog.file = false\nlog.console = true\nlog.console.level = error\n"
            ),
        )?;
        fs::write(home.join("enabled_plugins"), "[].")?;
        set_environment(server.command(), &home);
        let numbers = [("ERL_EPMD_PORT", names_port), ("RABBITMQ_DIST_PORT", node_port)];
        server.command().envs(numbers.map(|(name, value)| (name, value.to_string())));
        server.command().env("RABBITMQ_NODENAME", format!("test{port}@localhost"));
        server.start()?;
        Ok(Self { server, _names: names, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, password: &str) -> String {
        format!("amqp://app:{password}@127.0.0.1:{}", self.port)
    }
}

fn set_environment(command: &mut Command, home: &std::path::Path) {
    let files = [
        ("HOME", ""),
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_PID_FILE", "pid"),
    ];
    command.envs(files.map(|(name, file)| (name, home.join(file))));
    command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null").env("ERL_EPMD_ADDRESS", "127.0.0.1");
    // One scheduler that does not spin: other tests want the cores.
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_that_stops_freezes_and_comes_back_is_seen_to_and_jobs_run_in_place_meanwhile() -> Tested {
    let mut broker = Broker::start()?;
    let mut watch = Watch::start().await?;
    watch.router.register(Amqp::new("jobs", &broker.url(PASSWORD))?).await?;
    watch.until_up("jobs").await.map_err(|error| format!("{error}\n{}", broker.server.log()))?;

    // What is wrong with a login or a virtual host tells nothing of the broker.
    watch.router.register(Amqp::new("wrong", &broker.url("not-the-word"))?).await?;
    let cause = watch.until_inconclusive("wrong").await?.to_string();
    assert!(cause.starts_with("403 ACCESS_REFUSED"), "{cause}");
    watch.router.register(Amqp::new("elsewhere", &format!("{}/no-such", broker.url(PASSWORD)))?).await?;
    let cause = watch.until_inconclusive("elsewhere").await?.to_string();
    assert!(cause.starts_with("530 NOT_ALLOWED"), "{cause}");
    assert!(watch.router.deregister("wrong") && watch.router.deregister("elsewhere"));

    jobs::go_to_the_broker_and_run_in_place_while_it_is_out(&mut watch, &mut broker).await?;
    stopped_frozen_and_restarted(&mut watch, "jobs", &mut broker.server).await
}
