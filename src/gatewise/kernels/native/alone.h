// Calls at once, each by one thread.
#pragma once

namespace gatewise {

// While it lives, this thread is a team of one to all that it calls: run_team() starts no others. See team.cpp.
class Alone {
  public:
    Alone();
    Alone(const Alone&) = delete;
    ~Alone();

  private:
    bool before_;
};

}  // namespace gatewise
