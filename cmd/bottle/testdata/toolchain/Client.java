import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Gets URLs with Java's own client and prints what comes back, each after a line "== URL". */
class Client {
    public static void main(String[] urls) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (String url : urls) {
            System.out.println("== " + url);
            HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/hello")).build();
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println("status " + response.statusCode());
            System.out.println(response.body());
        }
    }
}
