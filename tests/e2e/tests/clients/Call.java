import java.net.URI;
import java.net.http.*;

public class Call {
    public static void main(String[] args) throws Exception {
        var url = URI.create("https://api.example.com:" + args[0] + "/api/hello");
        var request = HttpRequest.newBuilder(url).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new Exception("no " + answer.statusCode());
        System.out.println(answer.body());
    }
}
