/* A libnvidia-ml.so.1 for tests: an H100, and an A100 with MIG instances in slots 0 and 4.
 *
 * FAKE_NVML_INIT=code     what nvmlInit answers (9: driver not loaded, 4: no permission)
 * FAKE_NVML_HANG=call     this call never returns: "init", "memory" (of the second card)
 * FAKE_NVML_CRASH=1       nvmlInit crashes
 * FAKE_NVML_LOST=1        the second card has fallen off the bus
 * FAKE_NVML_DENY=1        no permission for memory and processes of the second card (as with MIG and no root)
 * FAKE_NVML_OLD=1         no third versions of calls, as before driver 510
 * FAKE_NVML_CARDS=n       so many cards, all alike after the second
 * FAKE_NVML_BUSY=pid      a process with 30 GiB on the first card
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
enum { MOST = 64, SLOTS = 7 };

typedef unsigned long long u64;
typedef struct { int card, slot; char uuid[64]; } Device;       /* slot -1: a whole card */
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Use;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } Process;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;

static Device cards[MOST], instances[SLOTS];

static int setting(const char *name, int otherwise)
{
    const char *value = getenv(name);
    return value && *value ? atoi(value) : otherwise;
}

static void hang_at(const char *call)
{
    const char *value = getenv("FAKE_NVML_HANG");
    while (value && !strcmp(value, call))
        sleep(1000);
}

static int put(char *buffer, unsigned size, const char *text)
{
    if (strlen(text) >= size)
        return TOO_SMALL;
    strcpy(buffer, text);
    return SUCCESS;
}

static int is_second(const Device *device) { return device->card == 1; }
static int lost(const Device *device) { return is_second(device) && setting("FAKE_NVML_LOST", 0); }
static int denied(const Device *device)
{
    return is_second(device) && device->slot < 0 && setting("FAKE_NVML_DENY", 0);
}

int nvmlInitWithFlags(unsigned flags)
{
    if (setting("FAKE_NVML_CRASH", 0))
        abort();
    hang_at("init");
    for (int i = 0; i < MOST; i++) {
        cards[i].card = i;
        cards[i].slot = -1;
        snprintf(cards[i].uuid, sizeof cards[i].uuid, "GPU-0000%04d-aaaa-bbbb-cccc-0123456789ab", i);
    }
    for (int i = 0; i < SLOTS; i++) {
        instances[i].card = 1;
        instances[i].slot = i;
        snprintf(instances[i].uuid, sizeof instances[i].uuid, "MIG-0000%04d-aaaa-bbbb-cccc-0123456789ab", i);
    }
    return setting("FAKE_NVML_INIT", SUCCESS);
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code)
{
    return code == 9 ? "Driver Not Loaded" : code == LOST ? "GPU is lost" : "Some Error";
}

int nvmlSystemGetDriverVersion(char *buffer, unsigned size) { return put(buffer, size, "550.54.15"); }
int nvmlSystemGetNVMLVersion(char *buffer, unsigned size) { return put(buffer, size, "12.550.54.15"); }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 12040; return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = setting("FAKE_NVML_CARDS", 2); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device)
{
    if (index >= MOST)
        return INVALID;
    *device = &cards[index];
    return lost(*device) ? LOST : SUCCESS;
}

int nvmlDeviceGetName(Device *device, char *buffer, unsigned size)
{
    if (device->slot == 0)
        return put(buffer, size, "NVIDIA A100-SXM4-40GB MIG 1g.5gb");
    if (device->slot == 4)
        return put(buffer, size, "NVIDIA A100-SXM4-40GB MIG 3g.20gb");
    return put(buffer, size, is_second(device) ? "NVIDIA A100-SXM4-40GB" : "NVIDIA H100 80GB HBM3");
}

int nvmlDeviceGetUUID(Device *device, char *buffer, unsigned size) { return put(buffer, size, device->uuid); }

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory)
{
    if (is_second(device))
        hang_at("memory");
    if (denied(device))
        return NO_PERMISSION;
    u64 gib = 1ULL << 30;
    memory->total = device->slot == 0 ? 5 * gib : device->slot == 4 ? 20 * gib : is_second(device) ? 40 * gib : 80 * gib;
    memory->used = device->slot < 0 && device->card == 0 && setting("FAKE_NVML_BUSY", 0) ? 30 * gib : gib / 64;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device *device, Use *use)
{
    if (is_second(device))                      /* with MIG there are none */
        return NOT_SUPPORTED;
    use->gpu = 37;
    use->memory = 12;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *degrees)
{
    *degrees = 41 + device->card;
    return device->slot < 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts)
{
    *milliwatts = 70123;
    return device->slot < 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetComputeMode(Device *device, int *mode) { *mode = setting("FAKE_NVML_MODE", 0); return SUCCESS; }

int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor)
{
    *major = is_second(device) ? 8 : 9;
    *minor = 0;
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(Device *device, Pci *pci)
{
    if (device->slot >= 0)
        return NOT_SUPPORTED;
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x18 + device->card;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending)
{
    if (device->slot >= 0 || !is_second(device))
        return NOT_SUPPORTED;
    *current = *pending = 1;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) { *count = SLOTS; return SUCCESS; }

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned slot, Device **instance)
{
    if (!is_second(device) || slot >= SLOTS)
        return INVALID;
    if (slot != 0 && slot != 4)
        return NOT_FOUND;
    *instance = &instances[slot];
    return SUCCESS;
}

static int processes(Device *device, unsigned *count, Process *found)
{
    unsigned pid = device->slot < 0 && device->card == 0 ? setting("FAKE_NVML_BUSY", 0) : 0;
    if (denied(device))
        return NO_PERMISSION;
    if (pid && (!found || !*count)) {
        *count = 1;
        return TOO_SMALL;
    }
    *count = pid ? 1 : 0;
    if (pid)
        *found = (Process){ pid, 30ULL << 30, 0xffffffff, 0xffffffff };
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v2(Device *device, unsigned *count, Process *found)
{
    return processes(device, count, found);
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *found)
{
    return setting("FAKE_NVML_OLD", 0) ? NOT_SUPPORTED : processes(device, count, found);
}
