//! The status page in a browser, over real servers: what it shows while one dies and comes back, and who may do what.

#[path = "page/browser.rs"]
mod browser;

use std::{net::SocketAddr, time::Duration};

use pgdetour::{
    Config, Router,
    config::{Pings, Role},
    http::{self, Details, HttpOptions, Listening, Token},
    testkit::Cluster,
};

use serde_json::json;
use tokio::runtime::Runtime;

use self::browser::{Fallible, Tab};

const TOKEN: &str = "only-for-this-test-0123456789";
const MS: Duration = Duration::from_millis(1);

/// A pair of servers, a router over it, and its page.
struct Stage {
    cluster: Cluster,
    router: Router,
    at: SocketAddr,
    served: Option<Runtime>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.close();
    }
}

/// Serves it on a runtime of its own, with which all connections end.
async fn serve(router: &Router, at: SocketAddr, options: HttpOptions) -> Fallible<(Runtime, SocketAddr)> {
    let listening = Listening::bind(at).await?;
    let at = listening.address()?;
    let endpoints = http::router(router, options.hosts(http::loopback_names()));
    let runtime = Runtime::new()?;
    runtime.spawn(http::serve(listening, endpoints, std::future::pending()));
    Ok((runtime, at))
}

impl Stage {
    async fn set(options: HttpOptions) -> Fallible<Self> {
        let cluster = Cluster::start(1).await?;
        let pings = Pings { ping_timeout: 1000 * MS, outage_ping_frequency: 300 * MS, ..Pings::brisk() };
        let config = Config::builder()
            .pings(pings)
            .server("primary", Role::Primary, cluster.primary().url())
            .server("replica", Role::Replica, cluster.replica(0).url())
            .build()?;
        let router: Router = Router::start(config).await?;
        let (served, at) = serve(&router, ([127, 0, 0, 1], 0).into(), options).await?;
        Ok(Self { cluster, router, at, served: Some(served) })
    }

    /// Nobody serves any more.
    fn close(&mut self) {
        self.served.take().into_iter().for_each(Runtime::shutdown_background);
    }

    fn url(&self) -> String {
        format!("http://{}/", self.at)
    }
}

const CARD: &str =
    "[...document.querySelectorAll('#servers .card')].find(it => it.querySelector('h3').textContent === 'replica')";

fn card_says(text: &str) -> String {
    format!("{CARD}.innerText.includes({text:?})")
}

const BUTTON: &str =
    "[...document.querySelectorAll('button')].find(it => it.getClientRects().length && it.textContent ===";

fn click(text: &str) -> String {
    format!("{BUTTON} {text:?}).click()")
}

fn offers(text: &str) -> String {
    format!("!!({BUTTON} {text:?}))")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_an_outage_while_it_lasts_and_as_history_when_it_is_over() -> Fallible {
    let mut stage = Stage::set(HttpOptions::default().details(Details::Public)).await?;
    // Something that is lent, so that there is a use to be seen.
    let _lease = stage.router.alias("replica")?.get().await?;
    let mut tab = Tab::open()?;
    tab.look(1100, false)?;
    tab.go(&stage.url())?;
    tab.until("document.querySelector('#headline').textContent === 'All is well'")?;
    tab.until(&card_says("up"))?;
    let (fetched, _) = tab.told()?;
    assert_eq!(fetched, [stage.url(), format!("{}events", stage.url())], "all that is fetched");
    tab.picture("well-light.png")?;

    stage.cluster.replica(0).kill().await?;
    tab.until("document.querySelector('#headline').textContent === 'Degraded'")?;
    tab.until(&card_says("down"))?;
    tab.until("document.title.startsWith('Degraded')")?;
    tab.until("document.querySelector('#subline').textContent.includes('Requests for replica go to primary')")?;
    tab.until("document.querySelectorAll('#outages tr.open').length === 1")?;
    // Why a request goes where it goes, by keyboard: the row of the alias opens.
    tab.eval("document.querySelectorAll('#aliases summary')[1].focus()")?;
    tab.key("Enter")?;
    tab.until("document.querySelectorAll('#aliases details')[1].open")?;
    tab.until("document.querySelectorAll('#aliases details')[1].innerText.includes('down for')")?;
    pictures(&mut tab, "outage")?;

    stage.cluster.replica(0).start().await?;
    tab.until("document.querySelector('#headline').textContent === 'All is well'")?;
    tab.until(
        "document.querySelectorAll('#outages tbody tr').length === 1 && !document.querySelector('#outages tr.open')",
    )?;
    tab.until(&format!("{CARD}.querySelectorAll('.strip rect[data-s=down]').length === 1"))?;
    // The timeline tells of its spans by keyboard too.
    tab.eval(&format!("{CARD}.querySelector('.strip').focus()"))?;
    tab.key("ArrowLeft")?;
    tab.key("ArrowLeft")?;
    tab.until(&format!("/(down|recovering|suspect), \\d/.test({CARD}.querySelector('.read').textContent)"))?;
    pictures(&mut tab, "after")?;
    let (_, complaints) = tab.told()?;
    assert!(complaints.is_empty(), "{complaints:#?}");

    // A page without news says so, and finds its way back.
    stage.close();
    tab.until("document.body.classList.contains('stale') && document.querySelector('#linktext').textContent.includes('no news')")?;
    tab.picture("stale.png")?;
    let served = serve(&stage.router, stage.at, HttpOptions::default().details(Details::Public)).await?;
    tab.until(
        "!document.body.classList.contains('stale') && document.querySelector('#linktext').textContent === 'live'",
    )?;
    served.0.shutdown_background();
    Ok(())
}

fn pictures(tab: &mut Tab, of: &str) -> Fallible {
    for (width, dark) in [(1100, false), (1100, true), (360, false), (360, true)] {
        tab.look(width, dark)?;
        tab.until("document.getAnimations().every(it => it.playState !== 'running')")?;
        assert_eq!(tab.eval("document.documentElement.scrollWidth")?, width, "nothing goes beyond the screen's edge");
        assert_eq!(tab.eval(CONTRAST)?, json!([]), "as much contrast as WCAG AA asks for, {of} {width} {dark}");
        let (screen, light) = (if width < 600 { "phone" } else { "desk" }, if dark { "dark" } else { "light" });
        tab.picture(&format!("{of}-{screen}-{light}.png"))?;
    }
    tab.look(1100, false)
}

/// The texts that stand out too little from what is behind them: less than 4.5, or 3 where they are large (WCAG 2.2, 1.4.3).
const CONTRAST: &str = r"(() => {
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c.a === 1) return c; } return { r: 255, g: 255, b: 255 }; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.textContent.trim() || !node.getClientRects().length || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(node.tagName)) continue;
    const [one, other] = [light(parse(style.color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < least) poor.push(`${walker.currentNode.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_the_token_and_keeps_it_for_its_tab_alone() -> Fallible {
    let stage = Stage::set(HttpOptions::default().token(Token::new(TOKEN)?)).await?;
    let mut tab = Tab::open()?;
    tab.look(1100, false)?;
    tab.go(&stage.url())?;
    tab.until("!document.querySelector('#ask').hidden && document.activeElement.id === 'token'")?;
    assert_eq!(tab.eval("document.querySelector('#board').hidden")?, true);
    assert_eq!(tab.eval("document.body.innerText.includes('replica')")?, false, "no name is told");
    tab.picture("token.png")?;
    tab.write("not-the-token-not-the-token")?;
    tab.key("Enter")?;
    tab.until("document.querySelector('#askerror').textContent === 'That is not the token.'")?;
    tab.write(TOKEN)?;
    tab.key("Enter")?;
    tab.until("document.querySelector('#headline').textContent === 'All is well'")?;
    tab.until("document.querySelector('#ask').hidden")?;
    assert_eq!(tab.eval("document.cookie")?, "");
    assert_eq!(tab.eval("localStorage.length")?, 0);
    tab.go(&stage.url())?;
    tab.until("document.querySelector('#headline').textContent === 'All is well'")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_are_there_for_the_token_alone_and_do_what_they_say() -> Fallible {
    let stage = Stage::set(HttpOptions::default().details(Details::Public).token(Token::new(TOKEN)?)).await?;
    let mut tab = Tab::open()?;
    tab.look(1100, false)?;
    tab.go(&stage.url())?;
    tab.until("document.querySelector('#headline').textContent === 'All is well'")?;
    assert_eq!(tab.eval(&offers("Drain for 10 min"))?, false, "everybody sees, nobody acts");
    tab.eval(&click("Unlock actions"))?;
    tab.until("document.activeElement.id === 'token'")?;
    tab.write(TOKEN)?;
    tab.key("Enter")?;
    tab.until(&offers("Drain for 10 min"))?;
    tab.eval(&click("Drain for 10 min"))?;
    tab.until(&card_says("drained by 127.0.0.1"))?;
    tab.until("document.querySelector('#headline').textContent === 'Degraded'")?;
    assert!(stage.router.status().server("replica").is_some_and(|server| server.drained.is_some()));
    pictures(&mut tab, "drained")?;
    tab.eval(&click("Undrain"))?;
    tab.until("document.querySelector('#headline').textContent === 'All is well'")?;
    tab.eval(&click("Ping now"))?;
    tab.until("document.querySelector('#told').textContent === 'Ping now: primary. Done.'")?;
    tab.eval(&click("Lock actions"))?;
    tab.until(&format!("!{}", offers("Ping now")))?;
    let (_, complaints) = tab.told()?;
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}
