#include "proto/convert_control.h"

#include <gtest/gtest.h>

#include <memory>
#include <variant>

namespace ballast {
namespace {

const Batch kBatch{{1, 2, 3}, 4, 5};

// There and back again gives the same message.
void ExpectRoundTrip(const SessionMessage& message) {
  const v1::WorkDown sent = ToProto(message);
  const auto back = FromProto(sent);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->index(), message.index());
  EXPECT_EQ(ToProto(*back).SerializeAsString(), sent.SerializeAsString());
}

TEST(ConvertControlTest, EverySessionMessageSurvivesTheRoundTrip) {
  ExpectRoundTrip(Grant{kBatch, 7, 6, Uid{8, 9}});
  ExpectRoundTrip(Grant{kBatch, 7, 6, std::nullopt});
  ExpectRoundTrip(Done{kBatch, true, true, 77});
  ExpectRoundTrip(Flush{5});
  ExpectRoundTrip(Refuse{Uid{1, 2}, Refuse::Reason::kReceipts, {0, 3}});
  ExpectRoundTrip(Decided{Uid{1, 2}, 3, {kBatch}});
  ExpectRoundTrip(SkipLogged{kBatch});
  ExpectRoundTrip(CloseSession{"stopped", true});
}

TEST(ConvertControlTest, DecidedIsSentOnlyWhenAccepted) {
  EXPECT_TRUE(ToProto(SessionMessage(Decided{Uid{1, 1}, 1, {}})).decided().accepted());
}

TEST(ConvertControlTest, GrantWithoutUidHasNone) {
  const auto back = FromProto(ToProto(SessionMessage(Grant{kBatch, 1, 1, std::nullopt})));
  EXPECT_FALSE(std::get<Grant>(*back).uid.has_value());
}

TEST(ConvertControlTest, MessagesWithoutCounterpartAreRefused) {
  EXPECT_EQ(FromProto(v1::WorkDown()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FromProto(v1::ShardDown()).status().code(), absl::StatusCode::kInvalidArgument);
  v1::WorkDown refuse;
  refuse.mutable_refuse()->set_reason(static_cast<v1::WorkDown::Refuse::Reason>(9));
  EXPECT_EQ(FromProto(refuse).status().message(), "refuse.reason: 9 is not a value that this release knows");
}

TEST(ConvertControlTest, SubmissionSurvivesTheRoundTrip) {
  const Submission s{{1, 2}, {kBatch, kBatch}, 8, 3, {{1, 2, 3, 4.5}}, 6.5, 7.5, {{"push", 0.25}}};
  const Submission back = FromProto(ToProto(s));
  EXPECT_EQ(ToProto(back).SerializeAsString(), ToProto(s).SerializeAsString());
  EXPECT_EQ(back.receipts, s.receipts);
  EXPECT_EQ(back.batches, s.batches);
  EXPECT_EQ(back.timing[0].phase, "push");
}

TEST(ConvertControlTest, ShardMessagesSurviveTheRoundTrip) {
  auto decision = std::make_shared<Decision>();
  decision->run = "r";
  decision->index = 4;
  const auto d = FromProto(ToProto("r", ShardMessage(std::shared_ptr<const Decision>(decision))));
  ASSERT_TRUE(d.ok());
  EXPECT_EQ(*std::get<std::shared_ptr<const Decision>>(*d), *decision);
  const auto q = FromProto(ToProto("r", NormQuery{3, {{1, 2}, {0, 1}}}));
  ASSERT_TRUE(q.ok());
  EXPECT_EQ(std::get<NormQuery>(*q).uids, (std::vector<Uid>{{1, 2}, {0, 1}}));
  const auto m = FromProto(ToProto("r", ManifestCommitted{5, {4, 5}, 6}));
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(std::get<ManifestCommitted>(*m).kept, (std::vector<uint64_t>{4, 5}));
  EXPECT_EQ(std::get<ManifestCommitted>(*m).log_needed_from, 6u);
  EXPECT_EQ(ToProto("r", NormQuery{}).norm_query().run(), "r");
}

TEST(ConvertControlTest, PositionSurvivesTheRoundTrip) {
  const ShardPosition p{1, 2, 3, 4, 5, {{6, 7}}};
  const v1::ShardUp::Position sent = ToProto("r", 9, p);
  EXPECT_EQ(sent.run(), "r");
  EXPECT_EQ(sent.generation(), 9u);
  const ShardPosition back = FromProto(1, 2, sent);
  EXPECT_EQ(back.index, 3u);
  EXPECT_EQ(back.version, 4u);
  EXPECT_EQ(back.chain, 5u);
  EXPECT_EQ(back.undecided, p.undecided);
}

}  // namespace
}  // namespace ballast
