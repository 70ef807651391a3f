//! HOT: at most three searches in one short text.
//! bot-detection: programs that say what they are get no answer (spec/plugins.md C.6).
//! Owns: the list of well-known bots. Never: guesses; who names itself like a browser passes.

use std::sync::LazyLock;

use regex::bytes::Regex;
use regex::bytes::RegexSet;
use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::http::fields::trim_ows;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::View;

const PATTERN: Field = Field::string("").regex();

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "bot-detection",
        &[Field::array("allow", &PATTERN).default_strs(&[]), Field::array("deny", &PATTERN).default_strs(&[])],
    )
    .no_consumer(),
    priority: 2500,
    build,
};

struct BotDetection {
    allow: RegexSet,
    deny: RegexSet,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let patterns = |field: &str| {
        let refuse = |error: regex::Error| ConfigError { field: field.to_string(), message: error.to_string() };
        RegexSet::new(settings::texts(config, field)).map_err(refuse)
    };
    // Not when the first request waits for it.
    LazyLock::force(&BOTS);
    Ok(Box::new(BotDetection { allow: patterns("allow")?, deny: patterns("deny")? }))
}

impl Plugin for BotDetection {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        if view.fields.count(Known::UserAgent) > 1 {
            view.reply.gateway(400, "Only one User-Agent header allowed");
            return Verdict::Reply;
        }
        let Some(agent) = view.fields.get(view.source, Known::UserAgent).map(trim_ows) else {
            return Verdict::Continue;
        };
        if self.allow.is_match(agent) || !(self.deny.is_match(agent) || BOTS.is_match(agent)) {
            return Verdict::Continue;
        }
        view.reply.gateway(403, "Forbidden");
        Verdict::Reply
    }
}

/// Named like a bot, a spider or a crawler, in the ways in which these usually are.
const BY_SHAPE: &[&str] = &[
    r"[A-Za-z][Bb]ot[/ -]v?\d",
    r"[A-Za-z][Ss]pider(?:[/ -]v?\d|\b)",
    r"\b\w{0,30}favicon\w{0,30}\b",
    r"(?:[A-Za-z]{1,30}-)?Googlebot(?:-[A-Za-z]{1,30})?",
    r"Google.*/\+/web/snippet",
    r"Pingdom\.com_bot_version_\d",
    r"MSIE .*MSIECrawler",
    r"Microsoft .{0,30} Bot",
    r"Yandex\w{1,30}",
    r"IP2[a-z]{1,30}Bot",
    r"Accoona-[A-Za-z]{1,30}-Agent",
    r"AdsBot-Google(?:-[a-z]{1,30})?",
    r"archive.{0,30}\.org_bot",
    r"WeSEE:[A-Za-z]{1,30}",
    r"Y!J-BR[A-Z]/\d",
    r"jbot\b",
    r"\bYeti\b",
    r"crawl|Crawl(?:er|Daddy|Fire|Convera)",
];

/// Search engines, previews, feed readers, monitors.
const BY_NAME: &str = "\
    008/\\d|123metaspider-Bot|1470\\.net crawler|50\\.nu|Aboundex|Altresium/\\d|AppEngine-Google|Argus/\\d|\
    Ask Jeeves|Axtaris|[Bb]ai[Dd]u[Ss]pider|BaiduMobaider/\\d|bingbot|BingPreview|blitzbot|BlogBridge|Bloglovin|\
    BoardReader|boitho\\.com-dc|BotSeer|BUbiNG|Catchpoint|[Cc]harlotte|Checklinks|clumboot|Comodo-Webinspector|\
    CRAWL-E|DataparkSearch/\\d|Daumoa|DNSGroup/\\d|EDI/\\d|facebookexternalhit/\\d|Feedbin|Feed Seeker Bot|\
    fetchurl|findlinks|Flamingo_SearchEngine|FollowSite Bot|furlbot|Genieo|gigabot|GomezAgent|gonzo1|\
    Goodzer/\\d|Google SketchUp|Grub/\\d|grub-client|heritrix|HiddenMarket|holmes|HooWWWer|htdig|ia_archiver|\
    Icarus6j|ichiro|IconSurf|IlTrovatore|Infohelfer/\\d|InfuzApp|INGRID/\\d|InternetArchive|Isara|Job Roboter|\
    Kraken|Kurzor|larbin|LEIA|LesnikBot|Linguee Bot|LinkAider|LinkedInBot|Lite Bot|Llaut|LOOQ/\\d|lycos|\
    Mail\\.RU_Bot|masscan|masidani_bot|Mediapartners-Google|MJ12bot|mogimogi|mozDex|msnbot|msrbot|netresearch|\
    Netvibes|NewsGator|^NING|Nutch|Nymesis|ObjectsSearch|OgScrper|OOZBOT|Orbiter|PagePeeker|PagesInventory|\
    PathDefender/\\d|PaxleFramework|Peeplo Screenshot Bot|Peew/\\d|PlantyNet_WebRobot|Pompos|PostPost/\\d|\
    Qwantify|Read%20Later|Reaper|RedCarpet|Retreiver|Riddler|Rival IQ|scooter|Scrapy|Scrubby|searchsight|\
    seekbot|semanticdiscovery|SemrushBot|SEOstats|ShopSalad|SimplePie|SimpleRSS|Simpy|SiteCat Webbot|SiteCon|\
    Slack-ImgProxy|Slackbot-LinkExpanding|Slurp|snappy|sproose/\\d|Squrl Java|Steeler/\\d|Stringer|Tailsweep|\
    TheUsefulbot|Thumbshots\\.ru|ThumbShotsBot|Tiny Tiny RSS|Twitterbot|URL2PNG|Vagabondo|VoilaBot|^vortex|\
    Votay bot|^voyager|VSE/\\d|WASALive.Bot|Web-sniffer|WebThumb|WebZIP/\\d|WhatsApp|WhatWeb|WIRE|wminer/\\d|\
    WordPress|Wotbox|www\\.almaden\\.ibm\\.com|Xenu(?:.s)? Link Sleuth|yacy(?:bot)?|YahooSeeker|YodaoBot|\
    YottaaMonitor|Yowedo|^Zao|ZeBot_www\\.ze\\.bz|ZooShot|ZyBorg|altavista|archiver|envolk/\\d";

/// Libraries that programs fetch with.
const LIBRARIES: &str = "\
    Google-HTTP-Java-Client|Apache-HttpClient|Go-http-client|scalaj-http|http%20client|Python-urllib|\
    HttpMonitor|TLSProber|WinHTTP|JNLP|okhttp|aihttp|reqwest|axios|unirest-(?:java|python|ruby|nodejs|php|net)|\
    PycURL|aws-(?:cli|sdk-(?:cpp|go|java|nodejs|ruby|dotnet))";

static BOTS: LazyLock<Regex> = LazyLock::new(|| {
    let all = [&BY_SHAPE.join("|"), BY_NAME, LIBRARIES].join("|");
    Regex::new(&format!("(?-u){all}")).expect("the list is made of patterns")
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    #[track_caller]
    fn check(config: Value, agent: &str, passes: bool) {
        let mut exchange = Exchange::new(&["GET /p", &format!("User-Agent: {agent}")]);
        let verdict = exchange.access(&*plugin(&KIND, config));
        match passes {
            true => assert_eq!(verdict, Verdict::Continue, "{agent}"),
            false => {
                let told = (verdict, exchange.reply.status, exchange.reply_text());
                assert_eq!(told, (Verdict::Reply, 403, "Forbidden".to_string()), "{agent}");
            }
        }
    }

    #[test]
    fn well_known_bots_are_refused() {
        for agent in [
            "Googlebot/2.1 (+http://www.google.com/bot.html)",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Mozilla/5.0 (compatible; Baiduspider/2.0)",
            "facebookexternalhit/1.1",
            "Twitterbot/1.0",
            "WhatsApp/2.19",
            "Scrapy/1.0.3 (+http://scrapy.org)",
            "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
            "Go-http-client/1.1",
            "Python-urllib/3.9",
            "okhttp/4.9.0",
            "axios/0.21.1",
            "Apache-HttpClient/4.5.2 (Java/1.8.0_152)",
            "aws-sdk-java/1.11",
            "SomeNewBot/1.0",
        ] {
            check(json!({}), agent, false);
        }
    }

    #[test]
    fn browsers_and_command_line_tools_pass() {
        for agent in [
            "curl/7.88.1",
            "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
            "googleBOT",
            "robot",
        ] {
            check(json!({}), agent, true);
        }
        assert_eq!(Exchange::new(&["GET /p"]).access(&*plugin(&KIND, json!({}))), Verdict::Continue);
    }

    #[test]
    fn the_operator_has_the_first_word() {
        check(json!({ "allow": ["^Googlebot/2"] }), "Googlebot/2.1", true);
        check(json!({ "deny": ["curl"] }), "curl/7.88.1", false);
        check(json!({ "deny": ["curl"], "allow": ["7\\.88"] }), "curl/7.88.1", true);
        check(json!({ "deny": ["CURL"] }), "curl/7.88.1", true);
    }

    #[test]
    fn two_names_are_one_too_many() {
        let mut exchange = Exchange::new(&["GET /p", "User-Agent: a", "User-Agent: b"]);
        assert_eq!(exchange.access(&*plugin(&KIND, json!({}))), Verdict::Reply);
        assert_eq!((exchange.reply.status, &*exchange.reply_text()), (400, "Only one User-Agent header allowed"));
    }
}
