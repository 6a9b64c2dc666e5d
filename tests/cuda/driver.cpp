// A stand-in for NVIDIA's driver: the calls that src/commit/cuda/driver.rs makes, by the rules of their
// manual. A launch runs the kernel's C++ build, at once, on addresses of this process.
//
// The environment steers it and is read at each call: FAKE_CUDA_VERSION, FAKE_CUDA_CAPABILITY,
// FAKE_CUDA_DEVICES (at most 2), FAKE_CUDA_FAIL ("cuInit:100,cuGetErrorName:1"), FAKE_CUDA_WRONG.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>

#include "host.cpp"

#define ERRORS(EACH) \
    EACH(INVALID_VALUE, 1, "invalid argument") \
    EACH(NOT_INITIALIZED, 3, "initialization error") \
    EACH(NO_DEVICE, 100, "no CUDA-capable device is detected") \
    EACH(INVALID_DEVICE, 101, "invalid device ordinal") \
    EACH(INVALID_CONTEXT, 201, "invalid device context") \
    EACH(NO_BINARY_FOR_GPU, 209, "no kernel image is available for execution on the device") \
    EACH(INVALID_PTX, 218, "a PTX JIT compilation failed") \
    EACH(UNSUPPORTED_PTX_VERSION, 222, "the provided PTX was compiled with an unsupported toolchain.") \
    EACH(INVALID_HANDLE, 400, "invalid resource handle") \
    EACH(NOT_FOUND, 500, "named symbol not found") \
    EACH(ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered") \
    EACH(CONTEXT_IS_DESTROYED, 709, "context is destroyed")
#define CODE(name, code, text) name = code,
#define NAMED(name, code, text) {code, {"CUDA_ERROR_" #name, text}},

struct Error { const char *name, *text; };
enum { SUCCESS, ERRORS(CODE) };
static const std::map<int, Error> errors = {ERRORS(NAMED)};

struct Context { int device; bool lives; };

// Primary contexts of two devices, and one that somebody else created on the first. The handle of a
// device is not its number, and a stream, 5000 or 5001, belongs to a primary context.
constexpr int FIRST_DEVICE = 70, FIRST_STREAM = 5000;
static Context contexts[] = {{0, false}, {1, false}, {0, true}};
static thread_local Context *current = nullptr;
static std::mutex mutex;
static std::map<std::string, int> calls;
static std::map<void *, Context *> modules, functions;
static pid_t owner = 0;

static const char *setting(const char *name, const char *usual)
{
    const char *value = getenv(name);
    return value && *value ? value : usual;
}

static int version() { return atoi(setting("FAKE_CUDA_VERSION", "12040")); }
static int devices() { return atoi(setting("FAKE_CUDA_DEVICES", "2")); }
static int capability() { return (int)(10 * atof(setting("FAKE_CUDA_CAPABILITY", "9.0")) + 0.5); }
static bool is_device(int device) { return device >= FIRST_DEVICE && device < FIRST_DEVICE + devices(); }

// Counts a call. The result is what the environment demands, or what a call gets before cuInit, and in a
// process that was forked after it.
static int called(const std::string &name)
{
    const std::lock_guard<std::mutex> guard(mutex);
    calls[name]++;
    const std::string failing = "," + std::string(setting("FAKE_CUDA_FAIL", ""));
    const size_t found = failing.find("," + name + ":");
    if (found != std::string::npos) return atoi(failing.c_str() + found + name.size() + 2);
    const bool first = name == "cuInit" || name == "cuDriverGetVersion" || name.rfind("cuGetError", 0) == 0;
    return first || owner == getpid() ? SUCCESS : NOT_INITIALIZED;
}

static int describe(int code, const char **text, const char *Error::*part)
{
    const auto found = errors.find(code);
    *text = found == errors.end() ? nullptr : found->second.*part;
    return *text ? SUCCESS : INVALID_VALUE;
}

// Whether the blocks of the table's segments follow each other and are those of the launch.
static bool holds(const Segment *segments, u64 blocks, u32 count, u64 chunk)
{
    u64 next = 0;
    for (u32 i = 0; i < count; i++) {
        const Segment &segment = segments[i];
        if (segment.first_block != next || segment.length == 0 || segment.address == 0) return false;
        next += (segment.length - 1) / (CHUNKS * chunk) + 1;
    }
    return next == blocks;
}

#define ENTER if (const int code = called(__func__)) return code

extern "C" {

int cuInit(unsigned int flags)
{
    ENTER;
    if (flags) return INVALID_VALUE;
    if (owner && owner != getpid()) return NOT_INITIALIZED;
    return devices() ? (owner = getpid(), SUCCESS) : NO_DEVICE;
}

int cuDriverGetVersion(int *found) { ENTER; return *found = version(), SUCCESS; }
int cuGetErrorName(int error, const char **text) { ENTER; return describe(error, text, &Error::name); }
int cuGetErrorString(int error, const char **text) { ENTER; return describe(error, text, &Error::text); }
int cuDeviceGetCount(int *count) { ENTER; return *count = devices(), SUCCESS; }

int cuDeviceGet(int *device, int ordinal)
{
    ENTER;
    return ordinal < 0 || ordinal >= devices() ? INVALID_DEVICE : (*device = FIRST_DEVICE + ordinal, SUCCESS);
}

int cuDeviceGetName(char *name, int size, int device)
{
    ENTER;
    if (!is_device(device)) return INVALID_DEVICE;
    return snprintf(name, (size_t)size, "Stand-in %d", device - FIRST_DEVICE), SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    ENTER;
    if (!is_device(device)) return INVALID_DEVICE;
    if (attribute != 75 && attribute != 76) return INVALID_VALUE;
    return *value = attribute == 75 ? capability() / 10 : capability() % 10, SUCCESS;
}

int cuDevicePrimaryCtxRetain(Context **context, int device)
{
    ENTER;
    if (!is_device(device)) return INVALID_DEVICE;
    *context = &contexts[device - FIRST_DEVICE];
    return (*context)->lives = true, SUCCESS;
}

int cuCtxGetCurrent(Context **context) { ENTER; return *context = current, SUCCESS; }

int cuCtxSetCurrent(Context *context)
{
    ENTER;
    if (context && (context < contexts || context > contexts + 2)) return INVALID_CONTEXT;
    if (context && !context->lives) return CONTEXT_IS_DESTROYED;
    return current = context, SUCCESS;
}

int cuModuleLoadData(void **module, const char *image)
{
    ENTER;
    if (!current) return INVALID_CONTEXT;
    const std::string text(image);
    // An image without a zero byte goes on behind its last brace.
    const auto has = [&](const char *part) { return text.find(part) != std::string::npos; };
    if (text.empty() || text[text.find_last_not_of(" \n")] != '}') return INVALID_PTX;
    if (!has("\n.version 7.8\n") || version() < 11080) return UNSUPPORTED_PTX_VERSION;
    if (!has("\n.target sm_75\n") || capability() < 75) return NO_BINARY_FOR_GPU;
    if (!has(".visible .entry counterfoil_reduce(")) return INVALID_PTX;
    const std::lock_guard<std::mutex> guard(mutex);
    return modules[*module = malloc(1)] = current, SUCCESS;
}

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    ENTER;
    const std::lock_guard<std::mutex> guard(mutex);
    if (!modules.count(module)) return INVALID_HANDLE;
    if (strcmp(name, "counterfoil_reduce") != 0) return NOT_FOUND;
    return functions[*function = malloc(1)] = modules[module], SUCCESS;
}

int cuLaunchKernel(void *function, u32 x, u32 y, u32 z, u32 threads, u32 rows, u32 layers, u32 shared,
                   u64 stream, void **parameters, void **extra)
{
    ENTER;
    {
        const std::lock_guard<std::mutex> guard(mutex);
        if (!current) return INVALID_CONTEXT;
        if (!current->lives) return CONTEXT_IS_DESTROYED;
        if (!functions.count(function) || functions[function] != current) return INVALID_HANDLE;
        if (stream && stream != FIRST_STREAM + (u64)current->device) return INVALID_HANDLE;
    }
    if (x == 0 || x > 0x7fffffff || y != 1 || z != 1 || shared || !parameters || extra) return INVALID_VALUE;
    if (threads != CHUNKS || rows != 1 || layers != 1) return INVALID_VALUE;
    const u64 segments = *(u64 *)parameters[0], digests = *(u64 *)parameters[3];
    const u32 count = *(u32 *)parameters[1], domain = *(u32 *)parameters[2];
    if (!segments || segments % 8 || !digests || digests % 16 || domain > 1) return ILLEGAL_ADDRESS;
    if (!holds((const Segment *)segments, x, count, domain == LEAF ? 1024 : 64)) return ILLEGAL_ADDRESS;
    for (block_index = 0; block_index < x; block_index++)
        counterfoil_reduce((const Segment *)segments, count, domain, (uint4 *)digests);
    if (*setting("FAKE_CUDA_WRONG", "")) *(u8 *)digests ^= 1;
    return SUCCESS;
}

// For tests: how often a call was made, the handle of a context, and the end of a primary context.
int fake_calls(const char *name) { return calls[name]; }
void *fake_context(int number) { return &contexts[number]; }
void fake_reset(int device) { contexts[device].lives = false; }
}
