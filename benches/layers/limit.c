/* The least that making layers from wheels can cost: every member is inflated once, what comes out is hashed (the diff_id), and
 * the compressed bytes are hashed (the blob's digest). Nothing is written, checked or framed.
 *
 *     limit THREADS ROUNDS WHEEL...
 *
 * It shares nothing with src/: it is what src/ is held against. Each inflater that this machine has, and OpenSSL's SHA-256, are
 * timed alone first, in MB/s of what they read or write; then the fastest together, the wheels largest first on THREADS threads.
 * The last line is `limit SECONDS INFLATED-BYTES COMPRESSED-BYTES`, the best of ROUNDS.
 */
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <zlib.h>

struct member {
    const uint8_t *data;
    uint64_t compressed, size;
    int stored;
};

struct wheel {
    struct member *members;
    size_t count;
    uint64_t compressed, size;
};

enum { PIECE = 128 << 10 };

typedef void sink(void *to, const uint8_t *bytes, size_t size);
typedef void inflater(const struct member *, uint8_t *buffer, sink *, void *to);

static void fail(const char *what) {
    fprintf(stderr, "limit: %s\n", what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static uint32_t u16(const uint8_t *at) { return at[0] | at[1] << 8; }
static uint32_t u32(const uint8_t *at) { return u16(at) | u16(at + 2) << 16; }

/* The members of a zip archive, by its central directory (APPNOTE 4.3.12); zip64 is not needed here. */
static struct wheel open_wheel(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) fail(path);
    uint8_t *all = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (all == MAP_FAILED) fail(path);
    const uint8_t *end = all + status.st_size - 22;
    while (end > all && u32(end) != 0x06054b50) end--;
    struct wheel wheel = {.count = u16(end + 10)};
    wheel.members = calloc(wheel.count, sizeof *wheel.members);
    const uint8_t *entry = all + u32(end + 16);
    for (size_t index = 0; index < wheel.count; index++) {
        if (u32(entry) != 0x02014b50) fail("the central directory is damaged");
        const uint8_t *local = all + u32(entry + 42);
        struct member *member = &wheel.members[index];
        member->stored = u16(entry + 10) == 0;
        member->compressed = u32(entry + 20);
        member->size = u32(entry + 24);
        member->data = local + 30 + u16(local + 26) + u16(local + 28);
        wheel.compressed += member->compressed;
        wheel.size += member->size;
        entry += 46 + u16(entry + 28) + u16(entry + 30) + u16(entry + 32);
    }
    return wheel;
}

static void nowhere(void *to, const uint8_t *bytes, size_t size) { (void)to, (void)bytes, (void)size; }

static void with_zlib(const struct member *member, uint8_t *buffer, sink *give, void *to) {
    static __thread z_stream stream;
    static __thread int ready;
    if (!ready && inflateInit2(&stream, -15) != Z_OK) fail("zlib");
    ready = 1;
    inflateReset(&stream);
    stream.next_in = (uint8_t *)member->data;
    stream.avail_in = member->compressed;
    int code = Z_OK;
    while (code == Z_OK) {
        stream.next_out = buffer;
        stream.avail_out = PIECE;
        code = inflate(&stream, Z_NO_FLUSH);
        give(to, buffer, PIECE - stream.avail_out);
    }
    if (code != Z_STREAM_END) fail("zlib cannot inflate a member");
}

static void with_isal(const struct member *member, uint8_t *buffer, sink *give, void *to) {
    static __thread struct inflate_state state;
    isal_inflate_init(&state);
    state.crc_flag = ISAL_DEFLATE;
    state.next_in = (uint8_t *)member->data;
    state.avail_in = member->compressed;
    do {
        state.next_out = buffer;
        state.avail_out = PIECE;
        if (isal_inflate(&state) != ISAL_DECOMP_OK) fail("ISA-L cannot inflate a member");
        give(to, buffer, PIECE - state.avail_out);
    } while (state.block_state != ISAL_BLOCK_FINISH);
}

static void with_libdeflate(const struct member *member, uint8_t *buffer, sink *give, void *to) {
    static __thread struct libdeflate_decompressor *decompressor;
    if (!decompressor) decompressor = libdeflate_alloc_decompressor();
    size_t size;
    if (libdeflate_deflate_decompress(decompressor, member->data, member->compressed, buffer, member->size, &size) != 0)
        fail("libdeflate cannot inflate a member");
    give(to, buffer, size);
}

static struct { const char *name; inflater *run; double rate; } inflaters[] = {
    {"zlib", with_zlib, 0}, {"ISA-L", with_isal, 0}, {"libdeflate", with_libdeflate, 0}};

static struct wheel *wheels;
static size_t wheel_count;
static uint8_t *buffers[64];
static uint64_t largest;

static EVP_MD_CTX *hash_begin(void) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    return context;
}

static void hash_more(void *context, const uint8_t *bytes, size_t size) { EVP_DigestUpdate(context, bytes, size); }

static void hash_end(EVP_MD_CTX *context) {
    unsigned char digest[32];
    EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
}

static inflater *fastest;
static size_t next_wheel;

static void *work(void *buffer) {
    for (;;) {
        size_t index = __atomic_fetch_add(&next_wheel, 1, __ATOMIC_RELAXED);
        if (index >= wheel_count) return NULL;
        EVP_MD_CTX *tar = hash_begin(), *blob = hash_begin();
        for (size_t at = 0; at < wheels[index].count; at++) {
            const struct member *member = &wheels[index].members[at];
            if (member->stored) hash_more(tar, member->data, member->size);
            else fastest(member, buffer, hash_more, tar);
            hash_more(blob, member->data, member->compressed);
        }
        hash_end(tar), hash_end(blob);
    }
}

static int larger_first(const void *one, const void *other) {
    uint64_t a = ((const struct wheel *)one)->size, b = ((const struct wheel *)other)->size;
    return (a < b) - (a > b);
}

int main(int count, char **words) {
    if (count < 4) fail("usage: limit THREADS ROUNDS WHEEL...");
    int threads = atoi(words[1]), rounds = atoi(words[2]);
    if (threads < 1 || threads > 64 || rounds < 1) fail("THREADS is 1 to 64, ROUNDS at least 1");
    wheel_count = count - 3;
    wheels = calloc(wheel_count, sizeof *wheels);
    uint64_t size = 0, compressed = 0;
    for (size_t index = 0; index < wheel_count; index++) {
        wheels[index] = open_wheel(words[3 + index]);
        size += wheels[index].size, compressed += wheels[index].compressed;
        for (size_t at = 0; at < wheels[index].count; at++)
            if (wheels[index].members[at].size > largest) largest = wheels[index].members[at].size;
    }
    qsort(wheels, wheel_count, sizeof *wheels, larger_first);
    for (int thread = 0; thread < threads; thread++) {
        buffers[thread] = malloc(largest + PIECE);
        memset(buffers[thread], 1, largest + PIECE);
    }
    printf("%zu wheels: %.0f MB, %.0f MB compressed\n", wheel_count, size / 1e6, compressed / 1e6);

    size_t kinds = sizeof inflaters / sizeof *inflaters;
    for (size_t kind = 0; kind < kinds; kind++) {
        double best = 1e9;
        for (int round = 0; round < rounds; round++) {
            double start = now();
            for (size_t index = 0; index < wheel_count; index++)
                for (size_t at = 0; at < wheels[index].count; at++)
                    if (!wheels[index].members[at].stored)
                        inflaters[kind].run(&wheels[index].members[at], buffers[0], nowhere, NULL);
            if (now() - start < best) best = now() - start;
        }
        printf("  inflate, %-11s %6.0f MB/s of what comes out, one core\n", inflaters[kind].name, size / best / 1e6);
    }
    double best = 1e9;
    for (int round = 0; round < rounds; round++) {
        double start = now();
        EVP_MD_CTX *context = hash_begin();
        for (size_t index = 0; index < wheel_count; index++)
            for (size_t at = 0; at < wheels[index].count; at++)
                hash_more(context, wheels[index].members[at].data, wheels[index].members[at].compressed);
        hash_end(context);
        if (now() - start < best) best = now() - start;
    }
    printf("  SHA-256, %-11s %6.0f MB/s, one core\n", "OpenSSL", compressed / best / 1e6);

    /* Which inflater is fastest together with hashing is measured, not concluded: pieces that stay in a cache hash faster. */
    double least = 1e9;
    const char *chosen = "";
    for (size_t kind = 0; kind < kinds; kind++) {
        double together = 1e9;
        fastest = inflaters[kind].run;
        for (int round = 0; round < rounds; round++) {
            pthread_t running[64];
            double start = now();
            next_wheel = 0;
            for (int thread = 0; thread < threads; thread++) pthread_create(&running[thread], NULL, work, buffers[thread]);
            for (int thread = 0; thread < threads; thread++) pthread_join(running[thread], NULL);
            if (now() - start < together) together = now() - start;
        }
        printf("  both hashes, %-11s %5.0f MB/s of what comes out, %d threads\n", inflaters[kind].name, size / together / 1e6, threads);
        if (together < least) least = together, chosen = inflaters[kind].name;
    }
    printf("with %s\nlimit %.4f %llu %llu\n", chosen, least, (unsigned long long)size, (unsigned long long)compressed);
    return 0;
}
