// A call between two agents of libnice that have nothing but relay addresses:
// `libnice HOST PORT TRANSPORT TRANSPORT USER PASSWORD`.
//
// Says "ok" when every message came back as it was, "no relay" when an agent got no relay address. Waits without an end:
// who starts it ends it.

#include <nice/agent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES = 50, LONGEST = 1300 };

typedef struct {
    NiceAgent *agent;
    guint stream;
    gboolean has_gathered, is_ready, has_closed;
    char heard[LONGEST];
    guint length; // of what was heard; 0 when there is nothing
} Side;

static void end(const char *why) {
    puts(why);
    exit(1);
}

static void gathered(NiceAgent *agent, guint stream, gpointer side) {
    ((Side *)side)->has_gathered = TRUE;
}

static void changed(NiceAgent *agent, guint stream, guint component, guint state, gpointer side) {
    if (state == NICE_COMPONENT_STATE_FAILED) end("the agents do not find each other");
    if (state == NICE_COMPONENT_STATE_READY) ((Side *)side)->is_ready = TRUE;
}

static void heard(NiceAgent *agent, guint stream, guint component, guint length, gchar *bytes, gpointer to) {
    Side *side = to;
    if (length > LONGEST) end("a message is longer than any that was sent");
    memcpy(side->heard, bytes, length);
    side->length = length;
}

static void closed(GObject *agent, GAsyncResult *result, gpointer side) {
    ((Side *)side)->has_closed = TRUE;
}

static void turn(void) {
    g_main_context_iteration(NULL, TRUE);
}

static void begin(Side *side, gboolean is_controlling, char **arguments, const char *transport) {
    NiceRelayType type = strcmp(transport, "udp") == 0 ? NICE_RELAY_TYPE_TURN_UDP : NICE_RELAY_TYPE_TURN_TCP;
    NiceAddress local; // loopback is used only when it is asked for
    nice_address_init(&local);
    nice_address_set_from_string(&local, arguments[1]);
    side->agent = nice_agent_new(NULL, NICE_COMPATIBILITY_RFC5245);
    g_object_set(side->agent, "controlling-mode", is_controlling, "force-relay", TRUE, "upnp", FALSE, NULL);
    nice_agent_add_local_address(side->agent, &local);
    g_signal_connect(side->agent, "candidate-gathering-done", G_CALLBACK(gathered), side);
    g_signal_connect(side->agent, "component-state-changed", G_CALLBACK(changed), side);
    side->stream = nice_agent_add_stream(side->agent, 1);
    nice_agent_set_relay_info(side->agent, side->stream, 1, arguments[1], atoi(arguments[2]), arguments[5],
                              arguments[6], type);
    nice_agent_attach_recv(side->agent, side->stream, 1, NULL, heard, side);
    if (!nice_agent_gather_candidates(side->agent, side->stream)) end("nothing is gathered");
}

static void introduce(Side *side, Side *to) {
    gchar *name, *password;
    nice_agent_get_local_credentials(side->agent, side->stream, &name, &password);
    nice_agent_set_remote_credentials(to->agent, to->stream, name, password);
    GSList *candidates = nice_agent_get_local_candidates(side->agent, side->stream, 1);
    if (candidates == NULL) end("no relay");
    for (GSList *at = candidates; at != NULL; at = at->next)
        if (((NiceCandidate *)at->data)->type != NICE_CANDIDATE_TYPE_RELAYED) end("a candidate is not a relay address");
    nice_agent_set_remote_candidates(to->agent, to->stream, 1, candidates);
}

static void say(Side *from, Side *to, guint length) {
    char bytes[LONGEST];
    memset(bytes, (int)(length % 251), sizeof bytes);
    to->length = 0;
    if (nice_agent_send(from->agent, from->stream, 1, length, bytes) != (gint)length) end("a message is not sent");
    while (to->length == 0) turn();
    if (to->length != length || memcmp(to->heard, bytes, length) != 0) end("a message is not what was sent");
}

int main(int count, char **arguments) {
    if (count != 7) end("libnice HOST PORT TRANSPORT TRANSPORT USER PASSWORD");
    Side caller = {0}, callee = {0};
    begin(&caller, TRUE, arguments, arguments[3]);
    begin(&callee, FALSE, arguments, arguments[4]);
    while (!caller.has_gathered || !callee.has_gathered) turn();
    introduce(&caller, &callee);
    introduce(&callee, &caller);
    while (!caller.is_ready || !callee.is_ready) turn();
    for (guint number = 0; number < MESSAGES; number++) {
        say(&caller, &callee, 1 + number * 26);
        say(&callee, &caller, 1 + number * 26);
    }
    nice_agent_close_async(caller.agent, closed, &caller);
    nice_agent_close_async(callee.agent, closed, &callee);
    while (!caller.has_closed || !callee.has_closed) turn();
    puts("ok");
    return 0;
}
