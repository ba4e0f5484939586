#include "stages/ledger.h"

#include "stages/stage_fixture.h"

namespace lorry::stages {
namespace {

Ledger some_ledger() {
  Ledger ledger;
  ledger.keep(7);
  ledger.drop("malformed", {"a.jsonl", 3, "no role"});
  ledger.drop("malformed", {"a.jsonl", 5, ""});
  ledger.drop("malformed", {"b.jsonl", 1, ""});
  ledger.note("nothing to train on", {"a.jsonl", 9, ""});
  return ledger;
}

TEST(Ledger, CountsWhatWasReadKeptAndLeftOut) {
  const Ledger ledger = some_ledger();
  EXPECT_EQ(ledger.read(), 10);
  EXPECT_EQ(ledger.dropped("malformed"), 3);
  EXPECT_EQ(ledger.dropped("other"), 0);
  EXPECT_EQ(dump_json(ledger.summary()),
            R"({"read":10,"kept":7,"dropped":{"malformed":3},"noted":{"nothing to train on":1}})");
}

TEST(Ledger, ComesBackFromItsJson) {
  const Ledger ledger = some_ledger();
  EXPECT_EQ(Ledger::from_json(ledger.to_json()), ledger);
  EXPECT_EQ(Ledger::from_json(Json("no ledger")), Ledger());
}

TEST(Ledger, NamesTheFirstThousandOfAReasonAcrossParts) {
  Ledger total;
  for (int part = 0; part < 3; ++part) {
    Ledger one;
    for (int row = 0; row < 700; ++row) one.drop("no assistant turn", {std::to_string(part), row});
    total.add(one);
  }
  const auto& reason = total.reasons().at("no assistant turn");
  EXPECT_EQ(reason.rows, 2100);
  ASSERT_EQ(reason.named.size(), Ledger::kNamedRows);
  EXPECT_EQ(reason.named[699], (Ledger::Named{"0", 699, ""}));
  EXPECT_EQ(reason.named[999], (Ledger::Named{"1", 299, ""}));
}

TEST(Ledger, ALongDetailIsCut) {
  Ledger ledger;
  ledger.drop("malformed", {"a", 1, std::string(100'000, 'x')});
  EXPECT_LE(ledger.reasons().at("malformed").named[0].detail.size(), 300u);
}

TEST(DropLimit, IsANumberOrAPart) {
  EXPECT_FALSE(DropLimit::parse("")->is_set());
  EXPECT_EQ(DropLimit::parse("250")->rows(1000), 250);
  EXPECT_EQ(DropLimit::parse("0")->rows(1000), 0);
  EXPECT_EQ(DropLimit::parse("1%")->rows(1000), 10);
  EXPECT_EQ(DropLimit::parse("0.5%")->rows(300), 1);
  for (const char* bad : {"x", "%", "-1", "101%", "1.5", "1 %", "nan", "inf%"}) {
    const auto limit = DropLimit::parse(bad);
    ASSERT_FALSE(limit.ok()) << bad;
    EXPECT_EQ(limit.error().kind, ErrorKind::kUsage);
    EXPECT_NE(limit.error().message.find("--max-dropped"), std::string::npos);
  }
}

TEST(DropLimit, TooManyAreToldByReasonAndPlace) {
  const Ledger ledger = some_ledger();
  EXPECT_TRUE(ledger.check(DropLimit(), "raw/ds", 10).ok());
  EXPECT_TRUE(ledger.check(*DropLimit::parse("30%"), "raw/ds", 10).ok());
  const auto failed = ledger.check(*DropLimit::parse("2"), "raw/ds", 10);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().kind, ErrorKind::kInvalidInput);
  EXPECT_EQ(failed.error().message,
            "raw/ds: 3 of 10 rows left out, more than --max-dropped 2: 3 malformed (a.jsonl row 3: "
            "no role, a.jsonl row 5, b.jsonl row 1); mend the data or allow more");
}

class LedgerFile : public StageTest {};

TEST_F(LedgerFile, HasTheCountsAndThenALineForEachRow) {
  ASSERT_TRUE(some_ledger().write(*bucket_, "raw/ds").ok());
  EXPECT_EQ(*bucket_->read("raw/ds/ledger.jsonl"),
            "{\"read\":10,\"kept\":7,\"dropped\":{\"malformed\":3},\"noted\":{\"nothing to train "
            "on\":1}}\n"
            R"({"reason":"malformed","dropped":true,"place":"a.jsonl","row":3,"detail":"no role"})"
            "\n"
            R"({"reason":"malformed","dropped":true,"place":"a.jsonl","row":5})"
            "\n"
            R"({"reason":"malformed","dropped":true,"place":"b.jsonl","row":1})"
            "\n"
            R"({"reason":"nothing to train on","dropped":false,"place":"a.jsonl","row":9})"
            "\n");
}

}  // namespace
}  // namespace lorry::stages
