// The folder of model files: what stays in it, and what is believed.
#include "worker/session/model_files.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ballast/v1/control.grpc.pb.h"
#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

namespace fs = std::filesystem;

class Artifacts : public v1::Control::Service {
 public:
  grpc::Status GetArtifact(grpc::ServerContext*, const v1::ArtifactRef* ref, grpc::ServerWriter<v1::Piece>* writer) override {
    ++asked[ref->sha256()];
    v1::Piece piece;
    piece.set_data(bytes[ref->sha256()]);
    piece.set_total_bytes(piece.data().size());
    writer->Write(piece);
    return grpc::Status::OK;
  }
  std::map<std::string, std::string> bytes;  // by digest
  std::map<std::string, int> asked;
};

class ModelFilesTest : public testing::Test {
 protected:
  ModelFilesTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&artifacts_);
    server_ = builder.BuildAndStart();
    cluster_ = std::make_unique<Cluster>("127.0.0.1:" + std::to_string(port_));
  }
  ~ModelFilesTest() override { server_->Shutdown(); }

  std::string Put(const std::string& bytes) {
    const std::string digest = Sha256Hex(bytes);
    artifacts_.bytes[digest] = bytes;
    return digest;
  }
  // As if it had been used so long ago.
  void Age(const std::string& digest, std::chrono::hours age) const {
    fs::last_write_time(fs::path(dir_) / digest, fs::file_time_type::clock::now() - age);
  }

  Artifacts artifacts_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Cluster> cluster_;
  const std::string dir_ = FreshDir();
};

TEST_F(ModelFilesTest, AtMostSoManyBytesStayTheLeastRecentlyUsedGoFirst) {
  ModelFiles files(dir_, 250, cluster_.get());
  const std::string a = Put(std::string(100, 'a')), b = Put(std::string(100, 'b')), c = Put(std::string(100, 'c'));
  ASSERT_TRUE(files.Get(a).ok());
  ASSERT_TRUE(files.Get(b).ok());
  Age(a, std::chrono::hours(3));
  Age(b, std::chrono::hours(2));
  EXPECT_EQ(*files.Get(a), std::string(100, 'a'));  // used: b is the oldest now
  EXPECT_EQ(artifacts_.asked[a], 1);
  ASSERT_TRUE(files.Get(c).ok());
  EXPECT_TRUE(fs::exists(fs::path(dir_) / a));
  EXPECT_FALSE(fs::exists(fs::path(dir_) / b));
  EXPECT_TRUE(fs::exists(fs::path(dir_) / c));
  EXPECT_EQ(*files.Get(b), std::string(100, 'b'));  // fetched again
  EXPECT_EQ(artifacts_.asked[b], 2);
}

TEST_F(ModelFilesTest, OneThatIsLargerThanTheFolderMayBeStaysAlone) {
  ModelFiles files(dir_, 50, cluster_.get());
  const std::string a = Put(std::string(100, 'a')), b = Put(std::string(100, 'b'));
  ASSERT_TRUE(files.Get(a).ok());
  Age(a, std::chrono::hours(1));
  ASSERT_TRUE(files.Get(b).ok());
  EXPECT_FALSE(fs::exists(fs::path(dir_) / a));
  EXPECT_TRUE(fs::exists(fs::path(dir_) / b));
}

TEST_F(ModelFilesTest, ADamagedFileIsFetchedAgain) {
  ModelFiles files(dir_, 1000, cluster_.get());
  const std::string a = Put("weights");
  ASSERT_TRUE(files.Get(a).ok());
  std::ofstream(fs::path(dir_) / a, std::ios::trunc) << "weighty";
  EXPECT_EQ(*files.Get(a), "weights");
  EXPECT_EQ(artifacts_.asked[a], 2);
}

TEST_F(ModelFilesTest, OtherBytesThanTheDigestSaysAreNeverReturned) {
  ModelFiles files(dir_, 1000, cluster_.get());
  const std::string a = Put("weights");
  artifacts_.bytes[a] = "weighty";
  EXPECT_EQ(files.Get(a).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(fs::is_empty(dir_));
  EXPECT_EQ(files.Get("../../etc/passwd").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ballast
