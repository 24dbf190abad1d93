// Several threads take buffers of the pool, use them and give them back, while another one releases what waits.
#include <cstdio>
#include <thread>
#include <vector>

#include "memory.h"

namespace gatewise {
namespace {

int test() {
    BufferPool pool;
    std::vector<std::thread> threads;
    std::vector<int> shared(4);  // times that a thread found another's numbers in its buffer
    for (int thread = 0; thread < 4; ++thread)
        threads.emplace_back([&, thread] {
            Workspace workspace;
            for (Index i = 0; i < 2000; ++i) {
                const Index size = 1 + (i * 7 + thread) % 50;
                const BufferPool::Buffer buffer = pool.take(size);
                if (buffer.size < size) ++shared[thread];
                float* scratch = workspace.at_least(size);
                for (Index k = 0; k < buffer.size; ++k) buffer.data[k] = static_cast<float>(thread);
                for (Index k = 0; k < size; ++k) scratch[k] = buffer.data[k];
                for (Index k = 0; k < size; ++k) shared[thread] += scratch[k] != static_cast<float>(thread);
                pool.give_back(buffer);
                if (thread == 0 && i % 100 == 0) pool.release();
                if (i % 500 == 0) workspace.release();
            }
        });
    for (std::thread& thread : threads) thread.join();
    pool.release();
    int failures = 0;
    for (int count : shared) failures += count;
    std::printf("test_memory: 8000 buffers on 4 threads; %d failures\n", failures);
    return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace gatewise

int main() { return gatewise::test(); }
