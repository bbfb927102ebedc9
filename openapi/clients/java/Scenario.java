// What every generated client has to be able to do, here with openapi-generator's for Java and nothing of ours around it.

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.contextapi.client.ApiClient;
import org.contextapi.client.ApiException;
import org.contextapi.client.ApiResponse;
import org.contextapi.client.api.ContextsApi;
import org.contextapi.client.api.SearchApi;
import org.contextapi.client.api.UsageApi;
import org.contextapi.client.model.Batch;
import org.contextapi.client.model.BatchOp;
import org.contextapi.client.model.BatchOperationInput;
import org.contextapi.client.model.Context;
import org.contextapi.client.model.ContextInput;
import org.contextapi.client.model.ContextPage;
import org.contextapi.client.model.ContextPatch;
import org.contextapi.client.model.Count;
import org.contextapi.client.model.ErrorCode;
import org.contextapi.client.model.Filter;
import org.contextapi.client.model.ImportAnswer;
import org.contextapi.client.model.Mode;
import org.contextapi.client.model.Pack;
import org.contextapi.client.model.PackBudget;
import org.contextapi.client.model.PackResponse;
import org.contextapi.client.model.ProblemDetails;
import org.contextapi.client.model.Search;
import org.contextapi.client.model.SearchResponse;

final class Scenario {
    private final UUID user = UUID.randomUUID();
    private final ApiClient client = connect(System.getenv("CONTEXT_API_KEY"));
    private final ObjectMapper json = client.getObjectMapper();
    private final ContextsApi contexts = new ContextsApi(client);
    private final SearchApi search = new SearchApi(client);

    public static void main(String[] arguments) throws Exception {
        new Scenario().run();
    }

    private void run() throws Exception {
        UUID okapi = create();
        done("create");
        UUID zebra = upsert();
        done("upsert");
        search(okapi);
        done("search");
        pack(okapi);
        done("pack");
        page();
        done("page");
        conflict(zebra);
        done("conflict");
        errors();
        done("errors");
        importLines();
        done("import");
        export(okapi);
        done("export");
    }

    private UUID create() throws ApiException {
        ContextInput input = note("The okapi lives in the rain forest.").metadata(Map.of("source", "book"));
        ApiResponse<Context> answer = contexts.createContextWithHttpInfo(input, null, null, null, null);
        Context created = answer.getData();
        equal(answer.getStatusCode(), 201);
        equal(created.getVersion(), 1L);
        equal(created.getText(), "The okapi lives in the rain forest.");
        equal(((Map<?, ?>) created.getMetadata()).get("source"), "book");
        return created.getId();
    }

    private UUID upsert() throws ApiException {
        ApiResponse<Context> first = write(note("Zebras run.").key("zebra"), null);
        ApiResponse<Context> second = write(note("Zebras run fast.").key("zebra"), null);
        equal(List.of(first.getStatusCode(), second.getStatusCode()), List.of(201, 200));
        equal(second.getData().getId(), first.getData().getId());
        equal(second.getData().getVersion(), 2L);
        return first.getData().getId();
    }

    private void search(UUID okapi) throws ApiException {
        Filter book = new Filter().putAdditionalProperty("metadata.source", "book");
        Search request = new Search().query("okapi").mode(Mode.KEYWORD).userId(user).filter(book).limit(3);
        SearchResponse found = search.searchContexts(request, null);
        equal(found.getData().stream().map(hit -> hit.getContext().getId()).collect(Collectors.toList()), List.of(okapi));
        check(found.getData().get(0).getScore() > 0, "a hit has a score");
        equal(found.getDegraded(), List.of());
    }

    private void pack(UUID okapi) throws ApiException {
        Pack request = new Pack().query("okapi").mode(Mode.KEYWORD).userId(user).budget(new PackBudget().maxTokens(200));
        PackResponse packed = search.packContexts(request);
        check(packed.getText().contains("rain forest"), packed.getText());
        check(packed.getTokens() > 0 && packed.getTokens() <= 200, "it keeps to the budget");
        equal(packed.getCitations().get(0).getContextId(), okapi);
    }

    private void page() throws ApiException {
        List<BatchOperationInput> operations = IntStream.rangeClosed(1, 5)
            .mapToObj(n -> note("Page " + n + ".").contextType("page"))
            .map(context -> new BatchOperationInput().op(BatchOp.CREATE).context(context))
            .collect(Collectors.toList());
        contexts.writeBatch(new Batch().operations(operations), null).getResults()
            .forEach(result -> equal(result.getStatus(), 201));
        List<List<String>> pages = new ArrayList<>();
        String cursor = null;
        do {
            ContextPage page = contexts.listContexts(user, "page", null, null, null, 2, cursor);
            pages.add(page.getData().stream().map(Context::getText).collect(Collectors.toList()));
            cursor = page.getNextCursor();
            equal(page.getHasMore(), cursor != null);
        } while (cursor != null);
        equal(pages, List.of(List.of("Page 5.", "Page 4."), List.of("Page 3.", "Page 2."), List.of("Page 1.")));
    }

    private void conflict(UUID zebra) throws ApiException {
        ProblemDetails stale = problem(() -> contexts.patchContext(zebra, new ContextPatch().content("Late."), null, "\"1\""));
        equal(stale.getStatus(), 412);
        equal(stale.getCode(), ErrorCode.PRECONDITION_FAILED);
        Context fresh = contexts.patchContext(zebra, new ContextPatch().content("In time."), null, "\"2\"");
        equal(fresh.getVersion(), 3L);

        String name = UUID.randomUUID().toString();
        Context once = write(note("Once."), name).getData();
        equal(write(note("Once."), name).getData().getId(), once.getId());
        ProblemDetails other = problem(() -> write(note("Another."), name));
        equal(other.getStatus(), 422);
        equal(other.getCode(), ErrorCode.IDEMPOTENCY_KEY_REUSED);
    }

    private void errors() {
        ProblemDetails missing = problem(() -> contexts.getContext(UUID.randomUUID(), null, null, null));
        equal(missing.getCode(), ErrorCode.CONTEXT_NOT_FOUND);
        equal(missing.getStatus(), 404);
        ProblemDetails wrong = problem(() -> write(note("Wrong.").ttlSeconds(0L), null));
        equal(wrong.getCode(), ErrorCode.INVALID_REQUEST);
        equal(wrong.getErrors().get(0).getPointer(), "/ttl_seconds");
        ProblemDetails stranger = problem(() -> new UsageApi(connect("ctx_nobody")).getUsage());
        equal(stranger.getCode(), ErrorCode.INVALID_API_KEY);
    }

    private void importLines() throws ApiException, JsonProcessingException {
        StringBuilder lines = new StringBuilder();
        for (ContextInput line : List.of(note("First line.").key("line-1"), note("Second.").ttlSeconds(0L), note("Third."))) {
            lines.append(json.writeValueAsString(line)).append('\n');
        }
        ImportAnswer imported = contexts.importContexts(lines.toString(), null, UUID.randomUUID().toString());
        equal(List.of(imported.getCreated(), imported.getFailed(), imported.getNextLine()), List.of(2L, 1L, 4L));
        equal(imported.getErrors().get(0).getLine(), 2L);
        equal(imported.getErrors().get(0).getError().getCode(), ErrorCode.INVALID_REQUEST);
    }

    private void export(UUID okapi) throws ApiException, IOException {
        List<String> ids = new ArrayList<>();
        for (String line : Files.readAllLines(contexts.exportContexts(user, null, null, null, null).toPath())) {
            ids.add(json.readTree(line).get("id").asText());
        }
        equal((long) ids.size(), contexts.countContexts(new Count().userId(user)).getCount());
        equal(ids.size(), 10);
        check(ids.contains(okapi.toString()), "it is among the exported");
    }

    private ContextInput note(String content) {
        return new ContextInput().userId(user).contextType("note").content(content);
    }

    private ApiResponse<Context> write(ContextInput input, String idempotencyKey) throws ApiException {
        return contexts.createContextWithHttpInfo(input, null, idempotencyKey, null, null);
    }

    private static ApiClient connect(String key) {
        ApiClient client = new ApiClient();
        client.updateBaseUri(System.getenv("CONTEXT_API_URL"));
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + key));
        return client;
    }

    private interface Call {
        void run() throws ApiException;
    }

    private ProblemDetails problem(Call call) {
        try {
            call.run();
        } catch (ApiException error) {
            try {
                return json.readValue(error.getResponseBody(), ProblemDetails.class);
            } catch (JsonProcessingException unreadable) {
                throw new AssertionError("no problem details: " + error.getResponseBody(), unreadable);
            }
        }
        throw new AssertionError("it should have failed");
    }

    private static void equal(Object actual, Object expected) {
        check(expected.equals(actual), actual + " instead of " + expected);
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static void done(String step) {
        System.out.println("done: " + step);
    }
}
