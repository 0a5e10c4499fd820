//! The dashboard's pages as they are sent: their figures, their headers, and what is hostile in them.

use hub::{Hub, ImageSpec};

use crate::client::{Reply, get, head, request};
use crate::pull::pull;
use crate::roadstead::{Roadstead, Setup};

const IMAGE: &str = "library/app";

async fn page(roadstead: &Roadstead, path: &str) -> Reply {
    get(roadstead.admin(), path).send().await
}

async fn stage() -> (Hub, Roadstead) {
    let hub = Hub::start().await;
    hub.push(&ImageSpec::new(IMAGE).tag("latest").tag("1.2"));
    let roadstead = Setup::of(&hub).with("tags.immutable", vec!["1.2"]).start().await;
    (hub, roadstead)
}

#[tokio::test]
async fn the_overview_tells_a_newcomer_what_to_do_and_later_what_was_pulled() {
    let (_hub, roadstead) = stage().await;
    let empty = page(&roadstead, "/").await.text();
    let address = format!("http://{}", roadstead.at());
    assert!(empty.contains("Nobody has pulled yet") && empty.contains(&address), "{empty}");
    assert!(empty.contains("registry-mirrors"), "{empty}");

    pull(roadstead.at(), IMAGE, "latest").await;
    pull(roadstead.at(), IMAGE, "latest").await;
    let full = page(&roadstead, "/").await.text();
    assert!(!full.contains("Nobody has pulled yet"));
    for figure in ["library/app", "of 100", "anonymous", "<polyline", "reachable"] {
        assert!(full.contains(figure), "{figure} is missing in {full}");
    }
    let (_, clients) = full.split_once("id=\"clients\"").unwrap();
    let (clients, _) = clients.split_once("</section>").unwrap();
    assert!(clients.contains("127.0.0.1"), "{clients}");
    let figures = page(&roadstead, "/?part=figures").await.text();
    assert!(figures.contains("library/app") && !figures.contains("<polyline"));
    let week = page(&roadstead, "/?span=week").await.text();
    assert!(week.contains("aria-current=\"true\">Week"), "{week}");
}

#[tokio::test]
async fn a_repository_has_a_page_with_its_tags() {
    let (_hub, roadstead) = stage().await;
    for tag in ["latest", "1.2"] {
        pull(roadstead.at(), IMAGE, tag).await;
    }
    let list = page(&roadstead, "/repositories").await.text();
    let path = "/repositories/docker.io/library/app";
    assert!(list.contains(&format!("href=\"{path}\"")), "{list}");
    let tags = page(&roadstead, path).await.text();
    for figure in ["latest", "1.2", "linux/amd64", "never moves", "asked at the next pull"] {
        assert!(tags.contains(figure), "{figure} is missing in {tags}");
    }
    assert!(tags.contains("data-reference=\"docker.io/library/app:latest\""));
    let found = page(&roadstead, "/repositories?match=APP").await.text();
    assert!(found.contains(path));
    let missed = page(&roadstead, "/repositories?match=nothing").await.text();
    assert!(missed.contains("No cached repository matches"), "{missed}");

    for wrong in ["nowhere.example/a", "docker.io/UPPER", "%ff"] {
        let said = page(&roadstead, &format!("/repositories/{wrong}")).await;
        assert_eq!(said.status, 404, "{wrong}");
        assert!(said.text().contains("There is no such repository</h1>"), "{}", said.text());
    }
    for wrong in ["/assets/a", "/assets/%ff"] {
        assert_eq!(page(&roadstead, wrong).await.status, 404, "{wrong}");
    }
}

#[tokio::test]
async fn foreign_text_stays_text() {
    let (_hub, roadstead) = stage().await;
    let script = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    for path in ["/repositories?match=", "/repositories/docker.io/", "/?span="] {
        let said = page(&roadstead, &format!("{path}{script}")).await.text();
        assert!(!said.contains("<script>alert"), "{path}: {said}");
    }
}

#[tokio::test]
async fn pages_run_nothing_that_is_not_theirs() {
    let (_hub, roadstead) = stage().await;
    let overview = page(&roadstead, "/").await;
    assert_eq!(overview.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(overview.header("cache-control"), Some("no-store"));
    let policy = overview.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = overview.text();
    assert!(!text.contains(" style=") && !text.contains("<style"));
    let assets: Vec<_> = text.split('"').filter(|it| it.starts_with("/assets/")).collect();
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in assets {
        let reply = page(&roadstead, asset).await;
        assert_eq!(reply.status, 200, "{asset}");
        assert!(reply.header("cache-control").is_some_and(|it| it.contains("immutable")));
    }
    let bare = head(roadstead.admin(), "/").send().await;
    assert_eq!((bare.status, bare.body.len()), (200, 0));
    let posted = request(roadstead.admin(), "POST", "/").header("x-roadstead", "1");
    assert_eq!(posted.send().await.status, 405);
}
